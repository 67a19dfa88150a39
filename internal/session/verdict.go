package session

import (
	"context"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
)

// Expected is what a monitor expects of grants.
type Expected struct {
	// Within counts a grant whose refresh token ends so soon as one that needs a person.
	Within time.Duration
	// Required, where it is set, is how many grants must be usable.
	Required *Required
}

// Required is a number of usable grants, or those of all companies that are known.
type Required struct {
	All    bool
	Grants int
}

// Level is how well grants are, in the words that monitors know.
type Level string

const (
	LevelOK       Level = "OK"
	LevelWarning  Level = "WARNING"
	LevelCritical Level = "CRITICAL"
	// LevelUnknown is where nobody can say.
	LevelUnknown Level = "UNKNOWN"
)

// Verdict is what is to be said of grants to whoever watches over them.
type Verdict struct {
	Level Level
	// Bad need a person at a browser, now or within the time that is expected.
	Bad []grant.Record
	// Doubtful are probably void.
	Doubtful []grant.Record
	// Lacking can't be used, and are none of those that need a person. They count where
	// all companies are required.
	Lacking []grant.Record
	// Short says that what is required is not there.
	Short bool
	// Grants are how many there are, beside companies without any (Unauthorized).
	Grants, Usable, Interrupted, Unauthorized int
	// Unread is how many files could not be used.
	Unread int
	// Unused says why there is nothing: nothing was ever kept here. It is empty where
	// something was.
	Unused string
	// Err is what keeps every grant from being refreshed; the level is unknown then.
	Err error
}

// Judge says how well grants are. Unread is how many files could not be used, and
// unused says that nothing was ever kept here.
func Judge(records []grant.Record, unread int, unused string, e Expected, now time.Time) Verdict {
	v := Verdict{Unread: unread, Unused: unused}
	for _, r := range records {
		state := r.StateAt(now)
		if state == grant.Unauthorized {
			v.Unauthorized++
		} else {
			v.Grants++
		}
		if state == grant.Interrupted {
			v.Interrupted++
		}
		switch {
		case NeedsPerson(r, e.Within, now):
			v.Bad = append(v.Bad, r)
		case r.ProbablyVoid():
			v.Doubtful = append(v.Doubtful, r)
		}
		switch {
		case state.Usable():
			v.Usable++
		case state != grant.Void && state != grant.Expired:
			v.Lacking = append(v.Lacking, r)
		}
	}
	if e.Required != nil {
		v.Short = v.Usable < e.Required.Grants
		if e.Required.All {
			v.Short = len(records) == 0 || len(v.Lacking) > 0
		}
	}
	switch {
	case len(v.Bad) > 0 || v.Short:
		v.Level = LevelCritical
	case len(v.Doubtful) > 0 || unread > 0:
		v.Level = LevelWarning
	case unused != "" && e.Required == nil:
		v.Level = LevelUnknown
	default:
		v.Level = LevelOK
	}
	return v
}

// Judge is the verdict on some of what is kept here. Where all seems well, it tries
// whether a refresh could be made: OK would say that the next one will do.
func (s *Session) Judge(ctx context.Context, records []grant.Record, unread int, e Expected, now time.Time) Verdict {
	unused := ""
	if len(records) == 0 && unread == 0 {
		unused = s.NeverUsed()
	}
	v := Judge(records, unread, unused, e, now)
	if v.Level == LevelOK && len(records) > 0 {
		if v.Err = s.CanRefresh(ctx, records); v.Err != nil {
			v.Level = LevelUnknown
		}
	}
	return v
}
