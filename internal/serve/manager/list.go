package manager

import (
	"cmp"
	"context"
	"fmt"
	"html"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/upsauth/upsauth/internal/config"
	"github.com/upsauth/upsauth/internal/explain"
	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/invitation"
	"github.com/upsauth/upsauth/internal/legible"
	"github.com/upsauth/upsauth/internal/render"
	"github.com/upsauth/upsauth/internal/serve/page"
	"github.com/upsauth/upsauth/internal/session"
	"github.com/upsauth/upsauth/internal/vault/shared"
)

// perPage is how many companies a page of the list has, and roomForRows how many bytes of
// a page of 15 KB they may take: where names are long, all pages have fewer.
const (
	perPage     = 20
	roomForRows = 8000
)

// cutAt is how much of a long name or user the list shows: the company's page has all.
const cutAt = 60

// show is what the list shows of all companies.
type show string

const (
	showAll          show = ""
	showPerson       show = "person"
	showAuthorized   show = "authorized"
	showExpiring     show = "expiring"
	showInterrupted  show = "interrupted"
	showUnauthorized show = "none"
	showInvited      show = "invited"
	showHeld         show = "held"
)

var shows = []struct {
	Value show
	Text  string
}{
	{showAll, "All companies"}, {showPerson, "Needs a person"}, {showAuthorized, "Authorized"}, {showExpiring, "Expires within 7 days"},
	{showInterrupted, "Interrupted"}, {showUnauthorized, "Unauthorized"}, {showInvited, "Invited"}, {showHeld, "A user to confirm"},
}

// fits reports whether a record, with its invitation, is among those that are asked for.
func (s show) fits(r grant.Record, i *session.Invited, now time.Time) bool {
	state := r.StateAt(now)
	switch s {
	case showPerson:
		return needs(r, now) || held(i, now)
	case showInvited:
		return i != nil
	case showHeld:
		return held(i, now)
	case showAuthorized:
		return state.Usable() && !r.ProbablyVoid()
	case showExpiring:
		return state == grant.Expiring
	case showInterrupted:
		return state == grant.Interrupted
	case showUnauthorized:
		return state == grant.Unauthorized
	}
	return true
}

// needs reports whether a person must do something about a grant.
func needs(r grant.Record, now time.Time) bool {
	return session.NeedsPerson(r, 0, now) || r.ProbablyVoid()
}

// row is one line of the list.
type row struct {
	Company, Application, Environment, State, User, Expires string
	Address                                                 string // the company's page
	Button                                                  string // what the application calls it
	Begin                                                   string // where it leads
	Bad                                                     bool   // a person must do something
	Invited                                                 string // stands beside the state
	Held                                                    bool   // a user waits to be confirmed
	Invite                                                  string // where its button leads
	Again                                                   string // the grant, where one press makes a new address: the main action
}

// choice is one of several in a form.
type choice struct {
	Value, Text string
	Chosen      bool
}

func (m *manager) list(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	s, err := m.Session(ctx)
	if err != nil {
		return err
	}
	all, err := s.Listed(ctx, "")
	if err != nil {
		return err
	}
	applications, err := s.Applications(ctx)
	if err != nil {
		return err
	}
	now := m.Now()
	s.MarkVoid(ctx, all.Records, true)
	invitations, err := s.InvitationsBeside(ctx, all.Records, "")
	if err != nil && !shared.IsAway(err) { // the list says that it is what was known
		return err
	}
	open := invitedFor(invitations, now)
	q := r.URL.Query()
	t := session.Target{Application: q.Get("app"), Environment: q.Get("env")}
	records := withInvited(forApplication(all.Records, t, applications), all.Records, open, t)
	shown, search := show(q.Get("show")), strings.TrimSpace(q.Get("q"))
	found := slices.DeleteFunc(records, func(record grant.Record) bool {
		return !shown.fits(record, open[record.ID], now) || search != "" && !mentions(record, search)
	})
	render.SortRecords(found, render.ByCompany, now)
	each := rowsOnPage(found, open, now)
	at, pages := pageAt(r, len(found), each)
	body := struct {
		Application, Search         string
		Shows, Applications, Places []choice
		Summary                     string
		Rows                        []row
		Found, Page, Pages          int
		Known                       bool
		Problems                    []string
		Steps                       []page.Link
		Done                        string
		Next, Hide                  string
		Held, FormToken             string
	}{
		Application: t.Application, Search: search, Summary: render.Summary(all.Records, now), Found: len(found), Page: at, Pages: pages,
		Known: len(all.Records) > 0, Done: done(r), Held: heldWords(open, now), FormToken: formToken(),
		Applications: applicationChoices(all.Records, applications, t.Application), Places: environmentChoices(all.Records, applications, t.Environment),
	}
	if slices.ContainsFunc(forApplication(all.Records, t, applications), func(r grant.Record) bool {
		return needs(r, now) || r.StateAt(now) == grant.Unauthorized || held(open[r.ID], now)
	}) {
		body.Next = address("/next", grant.ID{Application: t.Application, Environment: t.Environment})
	}
	for _, choices := range shows {
		body.Shows = append(body.Shows, choice{string(choices.Value), choices.Text, choices.Value == shown})
	}
	for i, problem := range all.Problems {
		if i == 5 {
			body.Problems = append(body.Problems, fmt.Sprintf("And %d more.", len(all.Problems)-i))
			break
		}
		body.Problems = append(body.Problems, m.failure(explain.Error(problem)).What)
	}
	can := canInvite(s, applications)
	for _, record := range found[(at-1)*each : min(at*each, len(found))] {
		body.Rows = append(body.Rows, rowOf(record, open[record.ID], can, now, applications))
	}
	step := func(text string, to int) {
		if to >= 1 && to <= pages && to != at {
			q := url.Values{}
			for name, values := range r.URL.Query() {
				if len(values) > 0 && values[0] != "" && name != "page" && name != "done" {
					q.Set(name, values[0])
				}
			}
			q.Set("page", strconv.Itoa(to))
			body.Steps = append(body.Steps, page.Link{Text: text, Address: "/?" + q.Encode()})
		}
	}
	step("First page", 1)
	step("Previous page", at-1)
	step("Next page", at+1)
	step("Last page", pages)
	body.Steps = unique(body.Steps)
	heading := "Company manager"
	switch t.Application {
	case config.IntelligentRating:
		heading = "Authorize Customer"
	case config.BatchSuite:
		heading = "My Company"
		if shown == showAll { // UPS Batch Suite never shows the others
			body.Hide = "/?app=" + config.BatchSuite + "&show=" + string(showAuthorized)
		}
	}
	m.write(w, r, http.StatusOK, "list", page.Page{Heading: heading}, body)
	return nil
}

// pageAt is the page of a list that a request asks for, and how many there are.
func pageAt(r *http.Request, total, each int) (at, pages int) {
	pages = max(1, (total+each-1)/each)
	at, _ = strconv.Atoi(r.Form.Get("page"))
	return min(max(at, 1), pages), pages
}

// rowsOnPage is how many companies each page of the list has, so that no page is too large.
// All have the same number: what stands on a page depends on the list alone.
func rowsOnPage(found []grant.Record, open map[grant.ID]*session.Invited, now time.Time) int {
	const bare = 240 // bytes of a row that says nothing but its state
	sizes := make([]int, len(found))
	for i, r := range found {
		links := len(short(address("", grant.ID{Company: r.Company})))
		sizes[i] = bare + 3*links + len(html.EscapeString(cut(r.Company)))
		if r.Application != "" {
			sizes[i] += 3*(len(r.Application)+len(r.Environment)) + 2*len("app=&amp;env=&amp;")
		}
		if r.TokenVaultKey != "" {
			sizes[i] += len("<bdi></bdi>2006-01-02..15:04..UTC, in..59..days") + len(html.EscapeString(cut(r.User)))
		}
		if sendsNew(r, now) || open[r.ID] != nil {
			sizes[i] += 100 + links // a larger button, or what stands beside the state
		}
	}
	for each := perPage; each > 1; each-- {
		fits := true
		for from := 0; from < len(sizes) && fits; from += each {
			sum := 0
			for _, size := range sizes[from:min(from+each, len(sizes))] {
				sum += size
			}
			fits = sum <= roomForRows
		}
		if fits {
			return each
		}
	}
	return 1
}

// forApplication are the grants of an application in an environment, and for each company
// that has none there a record without grant: they are the ones to begin with.
func forApplication(all []grant.Record, t session.Target, applications config.Applications) []grant.Record {
	if t.Application == "" && t.Environment == "" {
		return slices.Clone(all)
	}
	id := grant.ID{Application: t.Application, Environment: t.Environment}
	if registered := applications.Find(t.Application, t.Environment); len(registered) == 1 {
		id.Application, id.Environment = registered[0].Name, registered[0].Environment
	}
	records := session.Authorized(session.Filter(all, t.Application, t.Environment))
	there := map[grant.Folded]bool{}
	for _, r := range records {
		there[grant.Fold(r.Company)] = true
	}
	for _, r := range all {
		if folded := grant.Fold(r.Company); !there[folded] {
			there[folded] = true
			id.Company = r.Company
			records = append(records, grant.Record{Facts: grant.Facts{ID: id}, Found: grant.Found{Contact: r.Contact, Note: r.Note}})
		}
	}
	return records
}

// mentions reports whether a record has a text in what people look for.
func mentions(r grant.Record, search string) bool {
	search = legible.Fold(search)
	return slices.ContainsFunc([]string{r.Company, r.User, r.Contact, r.Note, r.TokenVaultKey}, func(text string) bool {
		return strings.Contains(legible.Fold(text), search)
	})
}

// withInvited are records with one for each invitation whose grant is not among them: the
// customer is invited for another application than those that the company has authorized.
// A company without a grant has the first of its invitations in its one record.
func withInvited(records, all []grant.Record, open map[grant.ID]*session.Invited, t session.Target) []grant.Record {
	if len(open) == 0 {
		return records
	}
	there, bare := make(map[grant.ID]bool, len(records)), map[string]int{}
	for i, r := range records {
		if there[r.ID] = true; r.Application == "" {
			bare[r.Company] = i
		}
	}
	known := map[string]grant.Record{}
	for _, r := range all {
		known[r.Company] = r
	}
	ids := slices.SortedFunc(maps.Keys(open), func(a, b grant.ID) int { return cmp.Compare(a.String(), b.String()) })
	for _, id := range ids {
		if there[id] || t.Application != "" && t.Application != id.Application || t.Environment != "" && t.Environment != id.Environment {
			continue
		}
		if i, ok := bare[id.Company]; ok {
			records[i].ID = id
			delete(bare, id.Company)
			continue
		}
		of := known[id.Company]
		records = append(records, grant.Record{Facts: grant.Facts{ID: id}, Found: grant.Found{Contact: of.Contact, Note: of.Note}})
	}
	return records
}

// heldWords say how many users wait to be confirmed, empty for none.
func heldWords(open map[grant.ID]*session.Invited, now time.Time) string {
	n := 0
	for _, i := range open {
		if held(i, now) {
			n++
		}
	}
	switch n {
	case 0:
		return ""
	case 1:
		return "1 user who signed in waits for your answer"
	}
	return fmt.Sprintf("%d users who signed in wait for your answer", n)
}

func rowOf(r grant.Record, i *session.Invited, canInvite func(application, environment string) bool, now time.Time, applications config.Applications) row {
	state := r.StateAt(now)
	x := row{
		Company: cut(r.Company), Application: r.Application, Environment: r.Environment, State: stateWord(r, now), User: cut(r.User),
		Address: short(address("/company", grant.ID{Company: r.Company})), Bad: needs(r, now),
	}
	if at := r.RefreshTokenExpires; !at.IsZero() {
		x.Expires = when(at) + ", " + strings.ReplaceAll(render.Relative(at, now), " ", "\u00a0")
	}
	id := r.ID
	if state == grant.Unauthorized && id.Application == "" {
		if len(applications.Applications) == 1 {
			id.Application, id.Environment = applications.Applications[0].Name, applications.Applications[0].Environment
		}
	}
	x.Button, x.Begin, x.Invite = authorizeWord(id.Application), short(address("/authorize", r.ID)), short(address("/invite", r.ID))
	switch {
	case held(i, now):
		x.Held = true
	case i != nil && i.State(now) == invitation.StateWrongUser:
		x.Invited = ", invited, wrong user"
	case i != nil:
		x.Invited = ", invited"
	}
	if sendsNew(r, now) && !x.Held && canInvite(id.Application, id.Environment) {
		x.Again = ofGrant(id)
	}
	return x
}

// short is an address of these pages in as few bytes as it can have in HTML.
func short(address string) string { return strings.ReplaceAll(address, "+", "%20") }

// stateWord is a state in a word or two.
func stateWord(r grant.Record, now time.Time) string {
	if r.ProbablyVoid() {
		return "probably void"
	}
	return string(r.StateAt(now))
}

// cut shortens a long text in its middle: beginnings and ends are what tells names apart.
func cut(text string) string {
	runes := []rune(text)
	if len(runes) <= cutAt {
		return text
	}
	return string(runes[:cutAt/2]) + "…" + string(runes[len(runes)-cutAt/2:])
}

func applicationChoices(records []grant.Record, applications config.Applications, chosen string) []choice {
	names := []string{config.IntelligentRating, config.BatchSuite, chosen}
	for _, r := range records {
		names = append(names, r.Application)
	}
	for _, a := range applications.Applications {
		names = append(names, a.Name)
	}
	return choices("All applications", names, chosen, displayName)
}

func environmentChoices(records []grant.Record, applications config.Applications, chosen string) []choice {
	names := []string{chosen}
	for _, r := range records {
		names = append(names, r.Environment)
	}
	for _, a := range applications.Applications {
		names = append(names, a.Environment)
	}
	return choices("All environments", names, chosen, func(name string) string { return name })
}

func choices(all string, names []string, chosen string, text func(string) string) []choice {
	slices.Sort(names)
	list := []choice{{"", all, chosen == ""}}
	for _, name := range slices.Compact(names) {
		if name != "" {
			list = append(list, choice{name, text(name), name == chosen})
		}
	}
	return list
}

// next leads to the next company that needs a person, behind the one that the request
// names, and from the last to the first.
func (m *manager) next(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	s, err := m.Session(ctx)
	if err != nil {
		return err
	}
	id := named(r)
	next, err := nextInNeed(ctx, s, id, m.Now())
	if err != nil {
		return err
	}
	if next.Company == "" {
		see(w, "/?done=nobody")
		return nil
	}
	see(w, address("/company", grant.ID{Company: next.Company}))
	return nil
}

func nextInNeed(ctx context.Context, s *session.Session, after grant.ID, now time.Time) (grant.ID, error) {
	need, err := s.InNeed(ctx, session.Target{Application: after.Application, Environment: after.Environment})
	if err != nil {
		return grant.ID{}, err
	}
	waiting, err := heldUsers(ctx, s, after, now)
	if err != nil {
		return grant.ID{}, err
	}
	if need = append(need, waiting...); len(need) == 0 {
		return grant.ID{}, nil
	}
	render.SortRecords(need, render.ByCompany, now)
	here := grant.Fold(after.Company)
	i := slices.IndexFunc(need, func(r grant.Record) bool { return cmp.Compare(grant.Fold(r.Company), here) > 0 })
	return need[max(i, 0)].ID, nil
}

// heldUsers are records of companies whose users wait to be confirmed.
func heldUsers(ctx context.Context, s *session.Session, t grant.ID, now time.Time) (list []grant.Record, err error) {
	records, err := s.Records(ctx, "")
	if err != nil {
		return nil, err
	}
	all, err := s.InvitationsBeside(ctx, records.Records, "")
	anyCompany := session.Target{Application: t.Application, Environment: t.Environment}
	for _, i := range all {
		if held(&i, now) && anyCompany.Fits(i.GrantID()) {
			list = append(list, grant.Record{Facts: grant.Facts{ID: i.GrantID()}})
		}
	}
	return list, err
}
