package cli

import (
	"github.com/spf13/cobra"
)

// topics are the help pages that are no commands.
func topics() []*cobra.Command {
	return []*cobra.Command{
		{Use: "environment", Short: "Environment variables and files", Long: environmentTopic},
		{Use: "exit-codes", Short: "What the exit codes mean", Long: exitCodesTopic},
		{Use: "states", Short: "What the states of a grant mean", Long: statesTopic},
		{Use: "output", Short: "What the commands print, for scripts", Long: outputTopic},
	}
}

const exitCodesTopic = `Every command ends with one of these exit codes:

    0  done
    1  failed; the message says what and why
    2  wrong usage: an unknown flag or argument, or a question that needs a
       terminal
    3  no such company, application or grant, or a state directory that was
       never used
    4  the company must be authorized again, by a person at a browser
    5  the vault is unavailable or locked
    6  UPS can't be reached, or refuses for now (429, 5xx); try again later
    7  UPS refuses the configuration: client ID, client secret, redirect URI
  126  exec: the program can't be run
  127  exec: there is no such program
  130  interrupted; what was under way with UPS was finished and saved first

A command about several companies ends with the code that needs a person most.`

const environmentTopic = `upsauth reads these environment variables:

  UPSAUTH_VAULT          the home of new secrets: keychain (default) or file
  UPSAUTH_PASSPHRASE     the passphrase of the file vault, if no identity file
                         opens it
  UPSAUTH_PASSPHRASE_FILE
                         a file with the passphrase, readable to you alone
  UPSAUTH_IDENTITY       the identity file that the file vault is encrypted to:
                         an age identity (age-keygen -o FILE makes one) or an
                         SSH ed25519 private key. It must be readable to you
                         alone, or be root's and readable to a group of yours
  UPSAUTH_CLIENT_ID, UPSAUTH_CLIENT_SECRET, UPSAUTH_REDIRECT_URI
                         used in place of a registration by upsauth app add, for
                         CI. The secret alone belongs to the only registered
                         application
  UPSAUTH_CONFIG_DIR     the directory of config.toml and applications.toml
  UPSAUTH_STATE_DIR      the directory of records, locks, journals and the file
                         vault. Both are full paths
  UPSAUTH_TRUST          directories, separated by colons (semicolons on
                         Windows), that upsauth uses although others own them
                         or can write there
  HOME, XDG_CONFIG_HOME, XDG_STATE_HOME
                         where the two directories are if the variables above
                         name none. Without HOME, the user database names it
  BROWSER                the program that opens the browser, or several separated
                         by colons; with arguments, quoted as in a shell; %s
                         stands for the address
  NOTIFY_SOCKET, WATCHDOG_USEC, JOURNAL_STREAM
                         set by systemd for upsauth refresh --every
  NO_COLOR               if it is set, to whatever value, there is no color
  HTTPS_PROXY, NO_PROXY  the proxy on the way to UPS, and the hosts that are
                         reached without it; in lower case too. ALL_PROXY is not
                         read. A proxy that can't be used is wrong usage
  SSL_CERT_FILE, SSL_CERT_DIR
                         certificates of the authorities to trust instead of the
                         system's (not on Windows and macOS)

config.toml, where every line is optional:

  vault = "keychain"               # or "file"
  identity = "identity.txt"        # beside config.toml, or a full path
  [callback]                       # for authorize
  tls_cert = "cert.pem"            # serves an https redirect URI on loopback
  tls_key = "key.pem"
  listen = "127.0.0.1:8400"        # where a tunnel brings the redirect URI
  [refresh]
  retry_unknown_after = "60s"      # how long to wait before a token is sent
                                   # again that UPS may have spent; at least
                                   # 30s, and through a proxy at least 10m
  [environments.lab]               # beside production, cie and sandbox
  base_url = "https://ups.lab.example"
  issuer = "https://ups.lab.example"
                                   # the iss that the answer to a sign-in must
                                   # have, if the environment sends one`

const outputTopic = `Results go to standard output, everything else to standard error. In
JSON, times are RFC 3339 in UTC, absent values are null, and new versions only
add fields. Tables are for people: their columns depend on the terminal's width
and may change.

upsauth status -o json:

  version                 1
  grants[]
    company               the company's name
    application           the application's name, null where the company has no
                          grant yet
    environment           production, cie, sandbox or one of your own, or null
    state                 see upsauth help states
    token_vault_key       the grant's GUID, new at each authorization
    user                  who signed in at ups.com
    issued, expires       of the access token, by UPS's clock
    refresh_token_issued, refresh_token_expires
                          of the refresh token, by UPS's clock
    vault                 keychain or file
    last_error            null, or the last failure:
      code                UPS's code, or a word
      message             what happened, as a sentence
      time                when
    probably_void         true if UPS refused another grant of the same user
    interrupted           in that state, the exchange without an outcome:
      time                when the request was sent
      attempt             how often, from 1
      outcome             what became of it, null if upsauth was cut off
    contact, note         set by upsauth company add
  problems[]              files that can't be read; then the exit code is 1
    path                  the file
    message               what is wrong with it, and how to repair it

probably_void, interrupted, contact, note and problems are left out where they
have nothing to say.

upsauth status -o csv has the same fields; last_error and interrupted have three
columns each. Fields that a spreadsheet takes for a formula get an apostrophe in
front: those that begin with =, @, a tab or a carriage return, or with + or - and
then anything but a digit. upsauth company import removes the apostrophe again.
--raw leaves it out.

upsauth status -o prometheus writes the text format of Prometheus, for the
textfile collector of its node exporter: upsauth_grant_state, upsauth_grants, the
four times as upsauth_access_token_issued_timestamp_seconds and so on,
upsauth_grant_last_error, upsauth_grant_probably_void and
upsauth_grant_refreshes_total. upsauth refresh --every --prometheus-file writes
the same to a file after each round, and adds upsauth_last_round_timestamp_seconds,
_refreshed, _failed and _exit_code.

upsauth status --check prints one line that begins with OK, WARNING, CRITICAL or
UNKNOWN.

upsauth token prints the access token and a newline. upsauth token -o json:

  version                 1
  company, application, environment
  access_token            the token
  token_type              Bearer
  expires                 when the access token expires

upsauth company list -o csv has the columns company, application, environment,
state, user, expires, refresh_token_expires, probably_void, contact and note.
upsauth company import reads this file.

upsauth company list, company show, vault status, doctor, vault check and version
take -o json too.`

const statesTopic = `The state of a grant follows from its record and the clock:

  authorized     The access token is valid.
  refreshable    The access token has expired; the refresh token is valid. The
                 next use refreshes it. Nobody has to do anything.
  expiring       The refresh token expires within 7 days. Run: upsauth refresh
  expired        The refresh token has expired, by this machine's clock. UPS
                 decides, so upsauth refresh tries it once more. If UPS refuses,
                 authorize the company again.
  void           UPS refused the refresh token. Was the ups.com password of the
                 person who signed in changed? Authorize the company again.
  interrupted    An exchange with UPS was cut off. The next use finishes it.
  unauthorized   The company is known and has no grant. Authorize it.

"Probably void" stands beside a state if UPS has since refused another grant of
the same ups.com user in the same environment. A changed password voids all grants
of a user. upsauth refresh shows whether this grant is void too.

The times shown are UPS's own. Whether a token is still valid is computed by this
machine's clock, from the moment before the token was requested.`
