package postgres

import (
	"net"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/upsauth/upsauth/internal/postgrestest"
)

// A database whose machine vanished must not hold a host up until TCP gives up, which takes
// a quarter of an hour.
func TestDeadConnectionsAreNoticed(t *testing.T) {
	noLibpq(t)
	s := server(t, postgrestest.Options{Hasty: true})
	sql(t, s, "ALTER ROLE upsauth PASSWORD 'pw'")
	db := Open(Settings{URL: s.URL(Role, "pw", "postgres"), Private: true})
	t.Cleanup(db.Close)
	must(t, db.Session(t.Context(), func(session *Session) error {
		raw, err := session.c.PgConn().Conn().(*net.TCPConn).SyscallConn()
		must(t, err)
		return raw.Control(func(fd uintptr) {
			for name, option := range map[string][3]int{
				"TCP_USER_TIMEOUT": {unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(deadAfter.Milliseconds())},
				"SO_KEEPALIVE":     {syscall.SOL_SOCKET, syscall.SO_KEEPALIVE, 1},
				"TCP_KEEPIDLE":     {unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, int(deadAfter.Seconds())},
			} {
				if got, err := unix.GetsockoptInt(int(fd), option[0], option[1]); err != nil || got != option[2] {
					t.Errorf("%s is %d, %v", name, got, err)
				}
			}
		})
	}))
}
