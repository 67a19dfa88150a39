package company

// MaxHistory and MaxEvents are how large a history gets.
const (
	MaxHistory = maxHistory
	MaxEvents  = maxEvents
)
