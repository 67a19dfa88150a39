package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestLoadShared(t *testing.T) {
	const file = "postgres://upsauth@db.example/upsauth?sslmode=verify-full"
	machine, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name, text string
		variables  map[string]string
		vault      string
		want       Shared
	}{
		{name: "everything", text: "vault = \"shared\"\n[shared]\nurl = \"" + file + "\"\nhost = \"web-1\"\ntake_over_after = \"1h\"\n",
			vault: "shared", want: Shared{URL: file, Host: "web-1", TakeOverAfter: time.Hour}},
		{name: "nothing but the vault", text: `vault = "shared"`, vault: "shared", want: Shared{Host: machine, TakeOverAfter: 10 * time.Minute}},
		{name: "a database beside the keychain", text: "[shared]\nurl = \"host=/run/postgresql dbname=upsauth\"\n",
			vault: "keychain", want: Shared{URL: "host=/run/postgresql dbname=upsauth", Host: machine, TakeOverAfter: 10 * time.Minute}},
		{name: "vault by the environment", variables: map[string]string{EnvVault: "shared"}, vault: "shared", want: Shared{Host: machine, TakeOverAfter: 10 * time.Minute}},
		{name: "the environment goes before", text: "[shared]\nurl = \"" + file + "\"\n", variables: map[string]string{EnvDatabaseURL: " postgres://u:s3cret@127.0.0.1/d\n"},
			vault: "keychain", want: Shared{URL: "postgres://u:s3cret@127.0.0.1/d", Private: true, Host: machine, TakeOverAfter: 10 * time.Minute}},
		{name: "never", text: "[shared]\ntake_over_after = \"never\"\n", vault: "keychain", want: Shared{Host: machine, TakeOverAfter: 10 * time.Minute, Never: true}},
		{name: "the least", text: "[shared]\ntake_over_after = \"60s\"\n", vault: "keychain", want: Shared{Host: machine, TakeOverAfter: time.Minute}},
		{name: "a name that is cleaned", text: "[shared]\nhost = \" Ku\\u0308che\\u200b 1 \"\n", vault: "keychain", want: Shared{Host: "Küche 1", TakeOverAfter: 10 * time.Minute}},
	} {
		t.Run(test.name, func(t *testing.T) {
			getenv, paths := newUser(t, test.variables)
			write(t, filepath.Join(paths.Config, "config.toml"), test.text)
			got, err := Load(getenv)
			if err != nil {
				t.Fatal(err)
			}
			if got.Vault != test.vault || got.Shared != test.want {
				t.Errorf("the vault is %s with %+v, want %s with %+v", got.Vault, got.Shared, test.vault, test.want)
			}
		})
	}
}

// A password in config.toml is in every backup of it. What is refused may be a password,
// so no error quotes it.
func TestLoadRefusesWhatCannotBeShared(t *testing.T) {
	for _, test := range []struct {
		name, table string
		says        []string
	}{
		{"password in the URL", `url = "postgres://u:s3cret@db.example/d"`, []string{"url of [shared]", "~/.pgpass", EnvDatabaseURL}},
		{"password among keywords", `url = "host=db.example password=s3cret"`, []string{"url of [shared]", "password in it"}},
		{"password in the query", `url = "postgres://u@db.example/d?sslpassword=s3cret"`, []string{"url of [shared]", "password in it"}},
		{"another database", `url = "mysql://u@s3cret/d"`, []string{"url of [shared]", "postgres://"}},
		{"no address", `url = "s3cret"`, []string{"url of [shared]", "postgres://"}},
		{"two lines", `url = "host=a\ns3cret"`, []string{"url of [shared]", "one line"}},
		{"name that nobody sees", `host = "\u200b"`, []string{"host of [shared]", "nothing"}},
		{"name of two lines", `host = "a\nb"`, []string{"host of [shared]", "one line"}},
		{"name without end", `host = "` + strings.Repeat("a", 201) + `"`, []string{"host of [shared]", "200"}},
		{"no duration", `take_over_after = "soon"`, []string{`take_over_after = "soon"`, `"10m"`, `"never"`}},
		{"too short", `take_over_after = "59s"`, []string{`take_over_after = "59s"`, "began in time can last"}},
		{"negative", `take_over_after = "-1h"`, []string{`take_over_after = "-1h"`, "began in time can last"}},
		{"number for a duration", `take_over_after = 600`, []string{"line 2", "integer"}},
		{"unknown setting", `password = "s3cret"`, []string{"line 2", `"shared.password" is not a setting`}},
		{"setting of the program's own", `Private = true`, []string{"line 2", `"shared.Private" is not a setting`}},
	} {
		t.Run(test.name, func(t *testing.T) {
			getenv, paths := newUser(t, nil)
			path := filepath.Join(paths.Config, "config.toml")
			write(t, path, "[shared]\n"+test.table+"\n")
			_, err := Load(getenv)
			refused(t, err, path, test.says...)
			if strings.Contains(err.Error(), "s3cret") {
				t.Errorf("the error quotes what may be a password: %v", err)
			}
		})
	}
	t.Run("the variable", func(t *testing.T) {
		getenv, _ := newUser(t, map[string]string{EnvDatabaseURL: "s3cret"})
		_, err := Load(getenv)
		refused(t, err, EnvDatabaseURL, "postgres://")
		if strings.Contains(err.Error(), "s3cret") {
			t.Errorf("the error quotes what may be a password: %v", err)
		}
	})
}
