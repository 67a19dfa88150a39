package cli

import (
	"github.com/spf13/cobra"
)

// topics are the help pages that are no commands.
func topics() []*cobra.Command {
	return []*cobra.Command{
		{Use: "environment", Short: "Environment variables and files", Long: environmentTopic},
		{Use: "exit-codes", Short: "What the exit codes mean", Long: exitCodesTopic},
		{Use: "output", Short: "What the commands print, for scripts", Long: outputTopic},
	}
}

const exitCodesTopic = `Every command ends with one of these exit codes:

    0  done
    1  failed; the message says what and why
    2  wrong usage: a flag or a word that can't be meant, or a question that
       needs a terminal
    3  no such company, application or grant
    4  the company must be authorized again, by a person at a browser
    5  the vault is unavailable or locked
    6  UPS can't be reached, or refuses for now (429, 5xx); try again later
    7  UPS refuses the configuration: client ID, client secret, redirect URI
  130  interrupted; what was under way with UPS was finished and saved first

Commands about several companies end with the code that most needs a person.`

const environmentTopic = `upsauth reads these environment variables:

  UPSAUTH_VAULT          where the secrets of new grants go: keychain (default)
                         or file
  UPSAUTH_PASSPHRASE     what opens the file vault, where no identity file does
  UPSAUTH_PASSPHRASE_FILE
                         a file that has the passphrase, readable to you alone
  UPSAUTH_IDENTITY       the identity file that the file vault is encrypted to:
                         an age identity (age-keygen -o FILE makes one) or an
                         SSH ed25519 private key. It must be readable to you
                         alone
  UPSAUTH_CLIENT_ID, UPSAUTH_CLIENT_SECRET, UPSAUTH_REDIRECT_URI
                         take the place of what is registered with upsauth app
                         add, for CI. The secret alone stands for the only
                         registered application
  UPSAUTH_CONFIG_DIR     the directory of config.toml and applications.toml
  UPSAUTH_STATE_DIR      the directory of records, locks, journals and the file
                         vault
  BROWSER                the program that opens the browser, or several parted
                         by colons; %s stands for the address
  NO_COLOR               no colour, whatever it is set to
  HTTPS_PROXY, NO_PROXY  the proxy for the way to UPS

config.toml, all of it optional:

  vault = "keychain"               # or "file"
  identity = "identity.txt"        # beside config.toml, or a full path
  [callback]                       # for authorize
  tls_cert = "cert.pem"            # serves an https redirect URI on loopback
  tls_key = "key.pem"
  listen = "127.0.0.1:8400"        # where a tunnel brings the redirect URI
  [refresh]
  retry_unknown_after = "60s"      # before a token whose fate is unknown is
                                   # sent again
  [environments.lab]               # beside production, cie and sandbox
  base_url = "https://ups.lab.example"`

const outputTopic = `Results go to standard output, everything else to standard error. JSON has
times as RFC 3339 in UTC; what is absent is null; fields are only ever added.

upsauth status -o json:

  version                 1
  grants[]
    company               the company's name
    application           the application's name
    environment           production, cie, sandbox or one of your own
    state                 authorized, refreshable, expiring, expired, void,
                          interrupted or unauthorized
    token_vault_key       the grant's GUID, new at each authorization
    user                  who signed in at ups.com
    issued, expires       of the access token, by UPS's clock
    refresh_token_issued, refresh_token_expires
                          of the refresh token, by UPS's clock
    vault                 keychain or file
    last_error            code, message and time of the last failure, or null

upsauth status -o csv has the same fields, last_error as three.

upsauth token prints the access token and a newline. upsauth token -o json:

  version, company, application, environment, access_token, token_type, expires

States: authorized (the access token is good), refreshable (it has expired, the
refresh token is good), expiring (the refresh token ends within 7 days), expired
(it has ended), void (UPS refused it; was the ups.com password changed?),
interrupted (an exchange was cut off, the next use settles it), unauthorized.`
