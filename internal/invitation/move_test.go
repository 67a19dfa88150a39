package invitation_test

import (
	"errors"
	"reflect"
	"testing"

	"github.com/upsauth/upsauth/internal/invitation"
	"github.com/upsauth/upsauth/internal/invitation/invitationtest"
)

// Invitations come along with their addresses: the latest counts there too, an earlier one
// does not. What prepare changes is kept in the new place alone.
func TestMoveTo(t *testing.T) {
	overStores(t, func(t *testing.T, b *invitation.Book) {
		ctx := t.Context()
		_, first := mustMake(t, b, draft())
		made, latest := mustMake(t, b, draft())
		to := invitation.Open(invitationtest.New())

		cutOff := errors.New("cut off")
		err := b.MoveTo(ctx, to, func(invitation.Key, *invitation.Invitation) error { return cutOff })
		if !errors.Is(err, cutOff) {
			t.Fatal(err)
		}
		if got, err := b.Get(ctx, latest); err != nil || !reflect.DeepEqual(got, made) {
			t.Errorf("after it was cut off there is %+v, %v", got, err)
		}
		for range 2 {
			err := b.MoveTo(ctx, to, func(key invitation.Key, i *invitation.Invitation) error {
				if key == latest {
					i.SignIn = &invitation.SignIn{Home: "shared"}
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		got, err := to.Get(ctx, latest)
		if err != nil || got.ID != made.ID || got.SignIn == nil || got.SignIn.Home != "shared" || got.End != nil {
			t.Errorf("there is %+v, %v", got, err)
		}
		if old, err := to.Get(ctx, first); err != nil || old.End == nil || old.End.Why != invitation.Replaced {
			t.Errorf("the earlier one is %+v, %v", old, err)
		}
		if any, err := b.Any(ctx); err != nil {
			t.Error(err)
		} else if list, _, err := b.List(ctx); any && (err != nil || len(list) > 0) {
			t.Errorf("left are %+v, %v", list, err)
		}
	})
}
