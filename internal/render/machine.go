package render

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"golang.org/x/sync/errgroup"

	"github.com/upsauth/upsauth/internal/grant"
)

// StatusVersion is the version of the JSON of status and token.
const StatusVersion = 1

// Status is the JSON of upsauth status.
type Status struct {
	Version int           `json:"version"`
	Grants  []StatusGrant `json:"grants"`
	// Problems are files that can't be read: there may be more grants.
	Problems []Problem `json:"problems,omitempty"`
}

// Problem is a file that can't be read, in the JSON of a list.
type Problem struct {
	Path    string `json:"path"`
	Message string `json:"message"`
}

// StatusGrant is one grant in the JSON of upsauth status.
type StatusGrant struct {
	Company             string           `json:"company"`
	Application         *string          `json:"application"`
	Environment         *string          `json:"environment"`
	State               grant.State      `json:"state"`
	TokenVaultKey       *string          `json:"token_vault_key"`
	User                *string          `json:"user"`
	Issued              *string          `json:"issued"`
	Expires             *string          `json:"expires"`
	RefreshTokenIssued  *string          `json:"refresh_token_issued"`
	RefreshTokenExpires *string          `json:"refresh_token_expires"`
	Vault               *string          `json:"vault"`
	LastError           *StatusLastError `json:"last_error"`

	// What follows is there only where there is something to say. ProbablyVoid
	// says that UPS refused another grant of the same user.
	ProbablyVoid bool               `json:"probably_void,omitzero"`
	Interrupted  *StatusInterrupted `json:"interrupted,omitzero"`
	Contact      *string            `json:"contact,omitzero"`
	Note         *string            `json:"note,omitzero"`
	InvitedUntil *string            `json:"invited_until,omitzero"`
	// Asked is who asked UPS for the token that stands, where hosts share the vault,
	// AwaitedFrom the other host whose request is interrupted, and Loss how they came to be
	// without a token that UPS takes.
	Asked       *StatusAsked `json:"asked,omitzero"`
	AwaitedFrom *string      `json:"awaited_from,omitzero"`
	Loss        *string      `json:"loss,omitzero"`
}

// StatusAsked is the request of one of the hosts that share a vault.
type StatusAsked struct {
	Host string  `json:"host"`
	Time *string `json:"time"`
}

// StatusInterrupted is the exchange with UPS that has no outcome yet. Outcome is
// what became of the last attempt, where that is known.
type StatusInterrupted struct {
	Time    *string `json:"time"`
	Attempt int     `json:"attempt"`
	Outcome *string `json:"outcome"`
}

// StatusLastError is the last failure of a grant in JSON.
type StatusLastError struct {
	Code    string  `json:"code"`
	Message string  `json:"message"`
	Time    *string `json:"time"`
}

func orNull(s *string) *string {
	if *s == "" {
		return nil
	}
	return s
}

// NewStatus makes the JSON of upsauth status.
func NewStatus(records []grant.Record, now time.Time) Status {
	status := Status{Version: StatusVersion, Grants: []StatusGrant{}}
	for i := range records {
		status.Grants = append(status.Grants, newStatusGrant(&records[i], now))
	}
	return status
}

// newStatusGrant refers to what stands in the record.
func newStatusGrant(r *grant.Record, now time.Time) StatusGrant {
	g := StatusGrant{
		Company: r.Company, Application: orNull(&r.Application), Environment: orNull(&r.Environment), State: r.StateAt(now),
		TokenVaultKey: orNull(&r.TokenVaultKey), User: orNull(&r.User),
		Issued: machineTime(r.Issued), Expires: machineTime(r.Expires),
		RefreshTokenIssued: machineTime(r.RefreshTokenIssued), RefreshTokenExpires: machineTime(r.RefreshTokenExpires),
		Vault: orNull(&r.Home), ProbablyVoid: r.ProbablyVoid(), Contact: orNull(&r.Contact), Note: orNull(&r.Note),
		InvitedUntil: machineTime(r.InvitedUntil),
	}
	if j := r.CutOff; j != nil {
		g.Interrupted = &StatusInterrupted{Time: machineTime(j.Time), Attempt: j.Attempt, Outcome: orNull(&j.Outcome)}
		if host := j.AnotherHost(); host != "" {
			g.AwaitedFrom = &host
		}
	}
	if r.Asked != nil {
		g.Asked = &StatusAsked{Host: r.Asked.Host, Time: machineTime(r.Asked.Time)}
	}
	if r.Loss != "" {
		g.Loss = &r.Loss
	}
	if r.LastError != nil {
		g.LastError = &StatusLastError{Code: r.LastError.Code, Message: r.LastError.Message, Time: machineTime(r.LastError.Time)}
	}
	return g
}

// StatusJSON writes what JSON makes of NewStatus, some grants after the others: all at once
// takes several times the memory of the records.
func StatusJSON(w io.Writer, records []grant.Record, now time.Time, problems ...Problem) error {
	out := bufio.NewWriterSize(w, 64<<10)
	fmt.Fprintf(out, "{\n  \"version\": %d,\n  \"grants\": [", StatusVersion)
	if err := statusGrants(out, records, now); err != nil {
		return err
	}
	if len(records) > 0 {
		_, _ = out.WriteString("\n  ")
	}
	_, _ = out.WriteString("]")
	if len(problems) > 0 {
		list := newMember("  ")
		if err := list.add(problems); err != nil {
			return err
		}
		_, _ = out.WriteString(",\n  \"problems\": ")
		_, _ = out.Write(list.text())
	}
	_, _ = out.WriteString("\n}\n")
	return out.Flush() // with the error of any write
}

// statusGrants writes the grants of a status. All cores encode, each some grants, and
// then these are written: that is most of what a long list still has to do.
func statusGrants(out *bufio.Writer, records []grant.Record, now time.Time) error {
	const atATime = 128
	members := make([]*member, min(runtime.GOMAXPROCS(0), (len(records)+atATime-1)/atATime))
	for i := range members {
		members[i] = newMember("    ")
	}
	comma := ""
	for len(records) > 0 {
		var group errgroup.Group
		used := 0
		for ; used < len(members) && len(records) > 0; used++ {
			m, some := members[used], records[:min(atATime, len(records))]
			records = records[len(some):]
			group.Go(func() error {
				m.reset()
				for i := range some {
					if err := m.add(newStatusGrant(&some[i], now)); err != nil {
						return err
					}
				}
				return nil
			})
		}
		if err := group.Wait(); err != nil {
			return err
		}
		for _, m := range members[:used] {
			_, _ = out.WriteString(comma + "\n    ")
			_, _ = out.Write(m.text())
			comma = ","
		}
	}
	return nil
}

// member is what stands in a list of JSON that is indented, one behind the other, as
// encoding/json writes it.
type member struct {
	buf    bytes.Buffer
	indent string
	format jsonv2.Options
}

func newMember(indent string) *member {
	return &member{indent: indent, format: jsonv2.JoinOptions(
		jsontext.WithIndentPrefix(indent), jsontext.WithIndent("  "), jsontext.EscapeForJS(true), jsontext.AllowInvalidUTF8(true))}
}

func (m *member) reset() { m.buf.Reset() }

func (m *member) add(v any) error {
	if m.buf.Len() > 0 {
		m.buf.WriteString(",\n" + m.indent)
	}
	return jsonv2.MarshalWrite(&m.buf, v, m.format)
}

func (m *member) text() []byte { return m.buf.Bytes() }

// Company is the JSON of upsauth company show.
type Company struct {
	Version int            `json:"version"`
	Company string         `json:"company"`
	Contact *string        `json:"contact,omitempty"`
	Note    *string        `json:"note,omitempty"`
	Grants  []StatusGrant  `json:"grants"`
	History []CompanyEvent `json:"history"`
}

// CompanyEvent is something that happened to a company, Count times.
type CompanyEvent struct {
	Time        *string `json:"time"`
	Event       string  `json:"event"`
	Application *string `json:"application"`
	Environment *string `json:"environment"`
	User        *string `json:"user"`
	Detail      *string `json:"detail"`
	Count       int     `json:"count"`
	// By is who did it, where that was not somebody at a command line.
	By string `json:"by,omitempty"`
}

// NewCompany makes the JSON of upsauth company show, of the records of one
// company: those of its grants, or one without grant.
func NewCompany(records []grant.Record, events []grant.Event, now time.Time) Company {
	company := Company{Version: StatusVersion, Company: records[0].Company, Contact: orNull(&records[0].Contact), Note: orNull(&records[0].Note), Grants: []StatusGrant{}, History: []CompanyEvent{}}
	if records[0].TokenVaultKey != "" {
		company.Grants = NewStatus(records, now).Grants
	}
	for i := range events {
		e := &events[i]
		company.History = append(company.History, CompanyEvent{
			Time: machineTime(e.Time), Event: string(e.What), Count: max(e.Count, 1),
			Application: orNull(&e.Application), Environment: orNull(&e.Environment), User: orNull(&e.User), Detail: orNull(&e.Detail), By: e.By,
		})
	}
	return company
}

// Token is the JSON of upsauth token.
type Token struct {
	Version     int     `json:"version"`
	Company     string  `json:"company"`
	Application string  `json:"application"`
	Environment string  `json:"environment"`
	AccessToken string  `json:"access_token"`
	TokenType   string  `json:"token_type"`
	Expires     *string `json:"expires"`
}

// NewToken makes the JSON of upsauth token.
func NewToken(g grant.Grant) Token {
	return Token{
		Version: StatusVersion, Company: g.Company, Application: g.Application, Environment: g.Environment,
		AccessToken: g.AccessToken, TokenType: "Bearer", Expires: machineTime(g.Expires),
	}
}

// JSON writes a value as one indented JSON document.
func JSON(w io.Writer, v any) error {
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(v)
}

// CSV writes lines of a table for programs and spreadsheets (RFC 4180, but for line
// feeds alone). A spreadsheet takes some texts for a formula: Cell keeps it from that,
// except where raw is set.
type CSV struct {
	w   *csv.Writer
	raw bool
}

// NewCSV returns a CSV that writes to w. The caller ends it with Flush.
func NewCSV(w io.Writer, raw bool) CSV { return CSV{csv.NewWriter(w), raw} }

// Write writes one line.
func (c CSV) Write(cells ...string) error {
	if !c.raw {
		cells = slices.Clone(cells)
		for i := range cells {
			cells[i] = Cell(cells[i])
		}
	}
	return c.w.Write(cells)
}

// Flush writes what is left, and returns the error of any write.
func (c CSV) Flush() error {
	c.w.Flush()
	return c.w.Error()
}

// Cell is a text as a spreadsheet takes it for text: with an apostrophe before what
// would be a formula, and before an apostrophe that FromCell would take away.
func Cell(text string) string {
	if isFormula(strings.TrimLeft(text, "'")) {
		return "'" + text
	}
	return text
}

// FromCell takes away the apostrophe that Cell put there.
func FromCell(cell string) string {
	if text, ok := strings.CutPrefix(cell, "'"); ok && isFormula(strings.TrimLeft(text, "'")) {
		return text
	}
	return cell
}

// isFormula goes by how a text begins. A sign before a digit begins a number, which
// does no harm.
func isFormula(text string) bool {
	if text == "" {
		return false
	}
	switch text[0] {
	case '=', '@', '\t', '\r':
		return true
	case '+', '-':
		return len(text) == 1 || text[1] < '0' || text[1] > '9'
	}
	return false
}

// StatusCSV writes one line a grant, with a header. Where several hosts share the vault, what
// is said of them comes behind the rest.
func StatusCSV(w io.Writer, records []grant.Record, now time.Time, raw, shared bool) error {
	out := NewCSV(w, raw)
	header := []string{"company", "application", "environment", "state", "token_vault_key", "user", "issued", "expires",
		"refresh_token_issued", "refresh_token_expires", "vault", "last_error_code", "last_error_message", "last_error_time", "probably_void",
		"interrupted_time", "interrupted_attempt", "interrupted_outcome", "contact", "note", "invited_until"}
	if shared {
		header = append(header, "asked_host", "asked_time", "awaited_from", "loss")
	}
	if err := out.Write(header...); err != nil {
		return err
	}
	for i := range records {
		g := newStatusGrant(&records[i], now)
		line := []string{g.Company, orEmpty(g.Application), orEmpty(g.Environment), string(g.State), orEmpty(g.TokenVaultKey), orEmpty(g.User),
			orEmpty(g.Issued), orEmpty(g.Expires), orEmpty(g.RefreshTokenIssued), orEmpty(g.RefreshTokenExpires), orEmpty(g.Vault), "", "", "", strconv.FormatBool(g.ProbablyVoid), "", "", "", orEmpty(g.Contact), orEmpty(g.Note), orEmpty(g.InvitedUntil)}
		if e := g.LastError; e != nil {
			line[11], line[12], line[13] = e.Code, e.Message, orEmpty(e.Time)
		}
		if j := g.Interrupted; j != nil {
			line[15], line[16], line[17] = orEmpty(j.Time), strconv.Itoa(j.Attempt), orEmpty(j.Outcome)
		}
		if shared {
			var host, asked string
			if a := g.Asked; a != nil {
				host, asked = a.Host, orEmpty(a.Time)
			}
			line = append(line, host, asked, orEmpty(g.AwaitedFrom), orEmpty(g.Loss))
		}
		if err := out.Write(line...); err != nil {
			return err
		}
	}
	return out.Flush()
}

// CompaniesCSV writes one line a grant and one for each company that has none,
// with a header. What it writes can be imported.
func CompaniesCSV(w io.Writer, records []grant.Record, now time.Time, raw bool) error {
	out := NewCSV(w, raw)
	if err := out.Write("company", "application", "environment", "state", "user", "expires", "refresh_token_expires", "probably_void", "contact", "note"); err != nil {
		return err
	}
	for i := range records {
		g := newStatusGrant(&records[i], now)
		if err := out.Write(g.Company, orEmpty(g.Application), orEmpty(g.Environment), string(g.State), orEmpty(g.User),
			orEmpty(g.Expires), orEmpty(g.RefreshTokenExpires), strconv.FormatBool(g.ProbablyVoid), orEmpty(g.Contact), orEmpty(g.Note)); err != nil {
			return err
		}
	}
	return out.Flush()
}

func orEmpty(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
