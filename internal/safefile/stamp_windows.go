package safefile

import "time"

// stamp can't be had on Windows: the times of directories and files are no promise there.
type stamp struct{ _ int }

func stampOf(string) (stamp, bool) { return stamp{}, false }

type stamps struct{}

func stampsIn(string) *stamps { return nil }

func (*stamps) of(string) (stamp, bool) { return stamp{}, false }

func (*stamps) close() {}

func (stamp) settledAt(time.Time) bool { return false }
