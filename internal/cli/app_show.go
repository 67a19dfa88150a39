package cli

import (
	"cmp"
	"context"

	"github.com/spf13/cobra"

	"github.com/upsauth/upsauth/internal/config"
	"github.com/upsauth/upsauth/internal/render"
	"github.com/upsauth/upsauth/internal/ups"
)

func newAppShowCmd(env *Env) *cobra.Command {
	cmd, _ := appCmd(env, "show", "Show one registration, without its secret", "  upsauth app show intelligent-rating", runAppShow)
	return cmd
}

func runAppShow(ctx context.Context, opts appOptions) error {
	s, r, err := findApp(ctx, opts)
	if err != nil {
		return err
	}
	defer s.Close()
	configured := "CONFIGURED"
	if _, err := s.StoredSecret(ctx, r); err != nil {
		configured = "NOT CONFIGURED: " + message(err)
	}
	rows := []render.Row{
		{Name: "Access Key Configuration", Value: configured},
		{Name: "Application", Value: r.Name},
		{Name: "Environment", Value: r.Environment},
		{Name: "Display name", Value: cmp.Or(r.DisplayName, cmp.Or(config.BuiltinDisplayName(r.Name), "-"))},
		{Name: "Client ID", Value: r.ClientID},
		{Name: "Redirect URI", Value: r.RedirectURI},
		{Name: "Public redirect URI", Value: cmp.Or(r.PublicRedirectURI, "-")},
		{Name: "Scope", Value: cmp.Or(r.Scope, "-")},
		{Name: "PKCE", Value: cmp.Or(r.PKCE, string(ups.PKCEAuto))},
		{Name: "Vault", Value: r.Home},
	}
	return render.Rows(opts.env.Out, rows, opts.env.width())
}
