package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"filippo.io/age"
	"github.com/spf13/cobra"

	"github.com/upsauth/upsauth/internal/backup"
	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/safefile"
	"github.com/upsauth/upsauth/internal/session"
	"github.com/upsauth/upsauth/internal/vault/agefile"
	"github.com/upsauth/upsauth/internal/vault/files"
)

type vaultExportOptions struct {
	target
	env             *Env
	Recipients      []string
	RecipientFiles  []string
	Armor           bool
	PassphraseStdin bool
	File            string
	Force           bool
}

func newVaultExportCmd(env *Env) *cobra.Command {
	opts := vaultExportOptions{env: env}
	cmd := &cobra.Command{
		Use:   "export -o FILE",
		Short: "Write authorizations and applications to one encrypted file",
		Long: `Writes the tokens of all companies and the client secrets of all applications, or
those of one company, to one encrypted file: a backup, or the way to another machine.
-o names the file; without it, the export goes to standard output. The file is
encrypted by age to the recipients that you name. Without recipients, a passphrase
encrypts it: from standard input, UPSAUTH_PASSPHRASE, UPSAUTH_PASSPHRASE_FILE or a
hidden prompt.

The file is a copy. As soon as one copy of a refresh token is used, all other copies
are spent. A server that sees a spent token may end the authorization. Use only one
copy.`,
		Example: `  upsauth vault export -r age1… -o backup.age
  upsauth vault export --company "Acme Corp" -R team-recipients.txt --armor > acme.age
  upsauth vault export -o backup.age`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts.Verbose = verbose(cmd)
			return runVaultExport(cmd.Context(), opts)
		},
	}
	opts.addFlags(cmd)
	cmd.Flags().StringArrayVarP(&opts.Recipients, "recipient", "r", nil, "who can open the file: age1…, ssh-ed25519 … or ssh-rsa … (may be repeated)")
	cmd.Flags().StringArrayVarP(&opts.RecipientFiles, "recipients-file", "R", nil, "a file with a recipient on each line (may be repeated)")
	cmd.Flags().StringVarP(&opts.File, "output", "o", "", "the file to write (default: standard output)")
	cmd.Flags().BoolVar(&opts.Force, "force", false, "replace the file of -o if it exists")
	cmd.Flags().BoolVarP(&opts.Armor, "armor", "a", false, "write text, which can be sent by mail or pasted")
	cmd.Flags().BoolVar(&opts.PassphraseStdin, "passphrase-stdin", false, "read the passphrase of the file from standard input")
	return cmd
}

func runVaultExport(ctx context.Context, opts vaultExportOptions) error {
	env := opts.env
	if env.OutTerminal && !opts.Armor && opts.File == "" {
		return usagef("the export is not text for a terminal: name a file with -o, or add --armor")
	}
	s, err := openJob(env, opts.Verbose)
	if err != nil {
		return err
	}
	defer s.Close()
	if opts.File != "" {
		if err := s.mayWrite(ctx, output{flag: "-o", path: opts.File, inputs: opts.RecipientFiles, force: opts.Force}); err != nil {
			return err
		}
	}
	list, err := s.Chosen(ctx, opts.Target)
	if err != nil {
		return err
	}
	records := list.Records
	applications, err := s.ChosenApplications(ctx, opts.Target)
	if err != nil {
		return err
	}
	if len(records)+len(applications) == 0 {
		if err := s.whole(); err != nil {
			return err
		}
		return &notFoundError{what: "there is nothing to export", advice: "upsauth status and upsauth app list show what can be exported."}
	}
	// Where a vault does not open there is nothing to choose a passphrase for.
	for _, home := range session.HomesOf(records, applications) {
		if err := s.Vault.Open(ctx, home); err != nil {
			return err
		}
	}
	recipients, err := opts.recipients(ctx)
	if err != nil {
		return err
	}
	failed := &failures{env: env}
	if len(s.problems) > 0 {
		failed.worst = exitFailed // a backup that lacks a company must not look whole
	}
	document, err := s.Backup(ctx, records, applications, func(c session.Copied) {
		switch {
		case c.Pending:
			fmt.Fprintf(env.Err, "Warning: a refresh of %s is under way or was cut off, and its token may be spent; the export has it as it is.\n", c.ID)
		default:
			failed.add(copiedName(c.ID)+" is not in the export", c.Err)
		}
	})
	if err != nil {
		return err
	}
	if len(document.Grants)+len(document.Applications) == 0 {
		return failed.end(ctx)
	}
	// Made as a whole first, so that what fails leaves no part of a file.
	var file bytes.Buffer
	if err := document.Seal(&file, recipients, opts.Armor); err != nil {
		return err
	}
	if err := opts.write(ctx, s, file.Bytes(), failed.worst == exitDone); err != nil {
		return err
	}
	fmt.Fprintf(env.Err, "Exported %s and %s.\n", counted(len(document.Grants), "authorization"), counted(len(document.Applications), "application"))
	if len(document.Grants) > 0 {
		fmt.Fprintln(env.Err, "The tokens are here and in the file now. Use only one of the two: once a copy is\n"+
			"refreshed, the other one's refresh token is spent, and using it may end both.")
	}
	return failed.end(ctx)
}

// write replaces an earlier export only by one that lacks nothing: the earlier one
// may have what this one lacks.
func (opts vaultExportOptions) write(ctx context.Context, s *job, export []byte, whole bool) error {
	if opts.File != "" {
		info, err := os.Stat(opts.File)
		switch {
		case err == nil && !info.Mode().IsRegular():
			return writeTo(opts.File, export)
		case err == nil && !whole:
			return fmt.Errorf("the export is incomplete, so %s was left as it is; name another file", opts.File)
		}
		if err := opts.replace(ctx, s, export); err != nil {
			return &outputError{err}
		}
		return nil
	}
	if _, err := opts.env.Out.Write(export); err != nil {
		return &outputError{fmt.Errorf("the export can't be written: %w", err)}
	}
	return nil
}

// replace writes the export's file, which is noted first: nobody looks for what a
// cut-off one leaves in a directory that is not upsauth's.
func (opts vaultExportOptions) replace(ctx context.Context, s *job, export []byte) error {
	path, err := filepath.Abs(opts.File)
	if err != nil {
		return fmt.Errorf("the export can't be written: %w", err)
	}
	work, err := s.Disk.Announce(ctx, files.Work{Kind: files.WorkExport, Path: path})
	if err != nil {
		return err
	}
	defer work.Done()
	_ = safefile.Sweep(path) // of an earlier one that was cut off
	return safefile.Write(opts.File, export)
}

// writeTo writes into a pipe or a device.
func writeTo(path string, data []byte) error {
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err == nil {
		_, err = file.Write(data)
		err = errors.Join(err, file.Close())
	}
	if err != nil {
		return &outputError{fmt.Errorf("the export can't be written: %w", err)}
	}
	return nil
}

// copiedName is how a grant or an application is called.
func copiedName(id grant.ID) string {
	if id.Company == "" {
		return fmt.Sprintf("%s (%s)", id.Application, id.Environment)
	}
	return id.String()
}

func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// recipients are those of the flags, or that of a passphrase.
func (opts vaultExportOptions) recipients(ctx context.Context) ([]age.Recipient, error) {
	var recipients []age.Recipient
	for _, text := range opts.Recipients {
		r, err := backup.ParseRecipient(text)
		if err != nil {
			return nil, usagef("-r: %v", err)
		}
		recipients = append(recipients, r)
	}
	for _, path := range opts.RecipientFiles {
		const most = 1 << 20 // bytes
		if err := checkPlace(opts.env, path); err != nil {
			return nil, err
		}
		text, err := readNamed(ctx, opts.env, path, most)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err != nil {
			return nil, usagef("-R: %v", err)
		}
		some, err := backup.ParseRecipients(bytes.NewReader(text))
		if err != nil {
			return nil, usagef("-R %s: %v", path, err)
		}
		recipients = append(recipients, some...)
	}
	if len(recipients) > 0 {
		if opts.PassphraseStdin {
			return nil, usagef("a file is encrypted either to recipients or with a passphrase: leave out -r and -R, or --passphrase-stdin")
		}
		return recipients, nil
	}
	passphrase, err := opts.passphrase(ctx)
	if err != nil {
		return nil, err
	}
	workFactor := backup.DefaultWorkFactor
	if opts.env.WorkFactor != 0 {
		workFactor = opts.env.WorkFactor
	}
	recipient, err := backup.Passphrase(passphrase, workFactor)
	if err != nil {
		return nil, err
	}
	return []age.Recipient{recipient}, nil
}

func (opts vaultExportOptions) passphrase(ctx context.Context) (string, error) {
	in := secretInput{what: "passphrase of the export", flag: "passphrase-stdin", twice: true}
	if opts.PassphraseStdin {
		return in.read(ctx, opts.env, true)
	}
	passphrase, err := passphraseFromEnvironment(ctx, opts.env)
	switch {
	case err == nil:
		fmt.Fprintln(opts.env.Err, "Encrypting with the passphrase of the file vault, from the environment.")
		return passphrase, nil
	case !errors.Is(err, agefile.ErrNoPassphrase):
		return "", err
	case !opts.env.attended():
		return "", usagef("who may open the file? Name recipients with -r or -R, or pipe in a passphrase with --passphrase-stdin")
	}
	return in.read(ctx, opts.env, false)
}
