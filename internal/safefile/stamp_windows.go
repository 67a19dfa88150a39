package safefile

import "time"

// stamp can't be had on Windows: the times of directories and files are no promise there.
type stamp struct{ _ int }

func stampOf(string) (stamp, bool) { return stamp{}, false }

func fileStampOf(string) (stamp, bool) { return stamp{}, false }

func (stamp) settledAt(time.Time) bool { return false }
