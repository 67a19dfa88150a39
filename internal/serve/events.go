package serve

import (
	"context"
	"errors"
	"path/filepath"

	"github.com/upsauth/upsauth/internal/grant"
	rounds "github.com/upsauth/upsauth/internal/service"
	"github.com/upsauth/upsauth/internal/service/events"
)

var errNoCommand = errors.New("config.toml names no command for events any more")

// openEvents reads what is yet to be told. The program that is told is config.toml's as it
// is at each event.
func (s *service) openEvents() (*events.Queue, error) {
	clock := s.Rounds.Clock
	return events.Open(events.Options{
		Path: filepath.Join(s.State, "events.json"), Now: clock.Now, After: clock.After, Log: s.logOf("events"),
		Tell: func(ctx context.Context, event []byte) error {
			command, err := s.eventCommand(ctx)
			if err != nil {
				return err
			}
			if len(command) == 0 {
				return errNoCommand
			}
			return s.Command(ctx, command, event)
		},
	})
}

func (s *service) eventCommand(ctx context.Context) ([]string, error) {
	session, err := s.sessions.get(ctx)
	if err != nil {
		return nil, err
	}
	return session.Config.Events.Command, nil
}

// eventsOf looks for events after each round, beside the metrics.
func (s *service) eventsOf(metrics func([]grant.Record, *rounds.Last) error) func([]grant.Record, *rounds.Last) error {
	return func(known []grant.Record, last *rounds.Last) error {
		var err error
		if metrics != nil {
			err = metrics(known, last)
		}
		command, configErr := s.eventCommand(context.Background())
		if configErr != nil || len(command) == 0 {
			return err // the round has told what is wrong with the configuration
		}
		return errors.Join(err, s.events.Look(known))
	}
}
