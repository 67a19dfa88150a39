package keys

// Settle waits until all that is written in the background is written.
func (b *Book) Settle() { b.writers.Wait() }
