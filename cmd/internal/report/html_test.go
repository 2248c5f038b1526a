package report

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"io"
	"math"
	"math/rand"
	"regexp"
	"strings"
	"testing"
	"time"

	"jindan/analyze"
	"jindan/analyze/view"
	"jindan/capture"
	"jindan/cmd/internal/report/svg"
)

// outageView is what a collector would have seen of the outage: 14 s of calm, then loss of large segments and of DNS answers.
func outageView() *view.View {
	v := &view.View{Schema: view.Schema, Start: start, Width: int64(100 * time.Millisecond), First: start, Last: after(46.2)}
	fill := func(f func(s float64) uint32) view.Count {
		c := make(view.Count, view.MaxBuckets)
		for i := range 462 {
			c[i] = f(float64(i) / 10)
		}
		return c
	}
	level := func(f func(s float64) uint32, every int) view.Level {
		l := view.Level{Max: make([]uint32, view.MaxBuckets), Min: make([]uint32, view.MaxBuckets), Seen: make([]bool, view.MaxBuckets)}
		for i := 0; i < 462; i += every {
			l.Max[i], l.Min[i], l.Seen[i] = f(float64(i)/10), f(float64(i)/10), true
		}
		return l
	}
	upTo := func(most uint32, from, slope float64) func(float64) uint32 {
		return func(s float64) uint32 { return min(most, uint32(max(s-from, 0)*slope)) }
	}
	before := func(n uint32) func(float64) uint32 {
		return func(s float64) uint32 {
			if s < 14 {
				return n
			}
			return 0
		}
	}
	since := func(n uint32) func(float64) uint32 {
		return func(s float64) uint32 {
			if s > 17 && int(s*10)%3 == 0 {
				return n
			}
			return 0
		}
	}
	v.Services = []view.Service{{Addr: server, Port: 8080, Requests: fill(before(2)), Answered: fill(before(2)), GaveUp: fill(since(2)),
		Unopened: fill(since(1)), Open: level(upTo(65, 14, 16), 1), Half: level(upTo(72, 17, 8), 1)}}
	v.Listeners = []view.Listener{{Port: 8080, Backlog: 65, Queue: level(upTo(65, 15, 16), 10), Unaccepted: level(upTo(56, 17, 8), 10), Held: level(upTo(16, 17, 8), 10)}}
	r := view.Resolver{Client: server, Server: upstream, Answered: fill(before(3)), Unanswered: fill(since(3)), Latency: make([][view.LatencySteps]uint16, view.MaxBuckets)}
	for i := range 140 {
		r.Latency[i][3+i%4] = 2
	}
	v.Resolvers = []view.Resolver{r}
	v.Host = view.HostSeries{Before: fill(since(2)), After: fill(since(1)), SYN: fill(since(5)), SYNACK: fill(since(1)),
		Resets: map[string]view.Count{"late_answer": fill(since(1)), "timeout": fill(since(1))}}
	down, up := view.Direction{From: upstream, To: server}, view.Direction{From: server, To: upstream}
	clients := view.Direction{From: "10.77.1.2", To: server}
	for s := range 47 {
		down.Sent[s][6], down.Sent[s][1] = 40, 5
		up.Sent[s][1], clients.Sent[s][2] = 20, 9
		if s >= 14 {
			down.Sent[s][6], down.Missing[s][6] = 5, 4
		}
	}
	v.Flows = []view.Direction{down, up, clients}
	v.Changes = []view.Change{{At: after(10), Kind: "route", What: "10.77.3.0/24"}, {At: after(15), Kind: "link", What: "eth0"}}
	id := analyze.FindingID("size-dependent-loss", analyze.Subject{Kind: analyze.SubjectPath, Host: server, Peer: upstream, Direction: "inbound", Segment: "data"})
	c := view.Connection{Finding: id, Client: server + ":40112", Server: upstream + ":8080", Stream: 382, First: after(14.4), Trouble: after(14.5),
		Last: after(46.2), Rank: 3, Of: 5, By: "lost"}
	seg := func(at float64, from bool, flags uint8, seq int64, n uint32, ack int64) {
		c.Segments = append(c.Segments, view.Segment{At: after(at), Frame: uint64(8000 + len(c.Segments)), Server: from, Flags: flags, Seq: seq, Len: n, Ack: ack, Window: 500})
	}
	seg(14.4, false, capture.SYN, 0, 0, -1)
	seg(14.4001, true, capture.SYN|capture.ACK, 0, 0, 0)
	seg(14.4002, false, capture.ACK, 0, 101, 0)
	seg(14.401, true, capture.ACK, 0, 1448, 101)
	seg(14.4011, true, capture.ACK, 4344, 1448, 101)
	seg(14.4012, false, capture.ACK, 101, 0, 1448)
	seg(14.4013, true, capture.ACK, 11584, 1448, 101)
	seg(14.63, true, capture.ACK, 1448, 1448, 101)
	c.Segments[7].Again, c.Segments[7].Fills = true, true
	seg(14.6301, false, capture.ACK, 101, 0, 2896)
	c.Segments[8].SACK = [][2]int64{{4344, 5792}, {11584, 13032}}
	seg(15.1, true, capture.ACK, 0, 1448, 101)
	c.Segments[9].Again = true
	v.Connections = []view.Connection{c}
	// The pool was seen to be full in a sample, as the one before was none.
	pool := analyze.FindingID("pool-exhausted", analyze.Subject{Kind: analyze.SubjectService, Host: server, Port: 8080})
	v.Sampled = map[string]capture.Instant{pool: after(13.9)}
	return v
}

func renderPage(t testing.TB, in Input, d *analyze.Diagnosis, v *view.View, o Options) string {
	t.Helper()
	o.Catalogue = fakeCatalogue{}
	var b bytes.Buffer
	if err := HTML(&b, in, d, v, o); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// elements checks what must hold of every page, and counts its elements.
func elements(t testing.TB, page string) (n int) {
	t.Helper()
	for _, bad := range []string{"NaN", "Inf", "%!", "<script", "ZgotmplZ", "http://", "https://", "src=", "@import"} {
		if i := strings.Index(page, bad); i >= 0 {
			t.Errorf("the page has %q: …%s…", bad, page[max(i-60, 0):min(i+60, len(page))])
		}
	}
	ids := map[string]bool{}
	var refs []string
	x := xml.NewDecoder(strings.NewReader(page))
	x.Strict, x.AutoClose, x.Entity = false, []string{"meta", "input"}, xml.HTMLEntity
	var open []string
	for {
		tok, err := x.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatalf("not well-formed: %v", err)
		}
		switch e := tok.(type) {
		case xml.StartElement:
			n++
			open = append(open, e.Name.Local)
			for _, a := range e.Attr {
				switch a.Name.Local {
				case "id":
					if ids[a.Value] {
						t.Errorf("id %q twice", a.Value)
					}
					ids[a.Value] = true
				case "aria-labelledby", "aria-describedby", "for":
					refs = append(refs, a.Value)
				case "href":
					refs = append(refs, strings.TrimPrefix(a.Value, "#"))
				}
				if strings.HasPrefix(a.Name.Local, "on") || a.Name.Local == "style" {
					t.Errorf("attribute %s", a.Name.Local)
				}
			}
		case xml.EndElement:
			if len(open) == 0 || open[len(open)-1] != e.Name.Local {
				t.Fatalf("</%s> closes %v", e.Name.Local, open)
			}
			open = open[:len(open)-1]
		}
	}
	for _, r := range refs {
		if !ids[r] {
			t.Errorf("nothing has the id %q that is referred to", r)
		}
	}
	if n > 15_000 || len(page) > 2<<20 {
		t.Errorf("%d elements, %d bytes", n, len(page))
	}
	return n
}

// sections are those of the first cause.
func pageSections(in Input, d *analyze.Diagnosis, v *view.View) []section {
	o := Options{Catalogue: fakeCatalogue{}}.withDefaults()
	b := &builder{in: in, d: d, v: v, o: o, en: wordsOf(in, d, o, English), ko: wordsOf(in, d, o, Korean)}
	p := b.page()
	if len(p.Incidents) > 0 {
		return p.Incidents[0].Sections
	}
	return p.Sections
}

// Golden pictures: one for each section.
func TestPictures(t *testing.T) {
	in, d := outage()
	for _, s := range pageSections(in, d, outageView()) {
		if s.Picture == nil {
			t.Errorf("%s has no picture: %s", s.ID, s.Without.En)
			continue
		}
		var b bytes.Buffer
		if err := pageParts.ExecuteTemplate(&b, "section", s); err != nil {
			t.Fatal(err)
		}
		golden(t, "picture-"+s.ID+".html", b.String())
		layout(t, s)
	}
}

// layout checks that no text leaves its picture and no two texts of one language overlap, by the estimate of their widths.
func layout(t testing.TB, s section) {
	t.Helper()
	p := s.Picture
	if p.Left > 0 {
		t.Errorf("%s: %d marks beyond the cap", s.ID, p.Left)
	}
	for _, l := range []Lang{English, Korean} {
		type box struct {
			x0, y0, x1, y1 float64
			s              string
		}
		var boxes []box
		for _, m := range p.Marks {
			if m.Kind != svg.Text {
				continue
			}
			text := l.pick(m.Text.En, m.Text.Ko)
			w := svg.Width(text, m.Size)
			x := float64(m.X)
			switch m.Anchor {
			case "middle":
				x -= w / 2
			case "end":
				x -= w
			}
			b := box{x, float64(m.Y) - m.Size*0.8, x + w, float64(m.Y) + m.Size*0.2, text}
			// The estimate of a width is rather too large.
			if b.x0 < -4 || b.x1 > float64(p.W)+4 || b.y0 < -2 || b.y1 > float64(p.H)+2 {
				t.Errorf("%s (%s): %q leaves the picture: %.0f–%.0f, %.0f–%.0f of %v × %v", s.ID, l, text, b.x0, b.x1, b.y0, b.y1, p.W, p.H)
			}
			for _, o := range boxes {
				if b.x0 < o.x1-1 && o.x0 < b.x1-1 && b.y0 < o.y1-1 && o.y0 < b.y1-1 {
					t.Errorf("%s (%s): %q and %q overlap", s.ID, l, text, o.s)
				}
			}
			boxes = append(boxes, b)
		}
	}
}

// The four answers of the page are those of the diagnosis, in both languages.
func TestPageAnswers(t *testing.T) {
	in, d := outage()
	page := renderPage(t, in, d, outageView(), Options{})
	elements(t, page)
	for id, want := range map[string][]string{
		"what": {"Size-dependent packet loss", "크기 의존 유실"}, "where": {"10.77.3.2 → 10.77.2.2 (this host), inbound", "10.77.3.2 → 10.77.2.2(이 호스트), 수신 방향"},
		"since": {"23:40:17.002 UTC"}, "cause": {"Root cause of 5 findings", "발견 사항 5건의 근본 원인"}} {
		answer := regexp.MustCompile(`(?s)id="` + id + `">.*?class="answer">(.*?)</p>`).FindStringSubmatch(page)
		if answer == nil {
			t.Errorf("no box %s", id)
			continue
		}
		for _, w := range want {
			if !strings.Contains(answer[1], w) {
				t.Errorf("%s: %q lacks %q", id, answer[1], w)
			}
		}
	}
	if again := renderPage(t, in, d, outageView(), Options{}); again != page {
		t.Error("the same input gives other bytes")
	}
	if ko := renderPage(t, in, d, outageView(), Options{Lang: Korean}); !strings.Contains(ko, `id="korean" class="language" checked`) || !strings.Contains(ko, `<html lang="ko">`) {
		t.Error("the page does not open in Korean")
	}
}

// Numbers of the pictures that can be told by hand.
func TestPageNumbers(t *testing.T) {
	in, d := outage()
	page := renderPage(t, in, d, outageView(), Options{})
	// 32 full seconds after that of the onset, of which 5 sent and 4 lost in each; 14 before with 40.
	for _, want := range []string{"128 of 160 of 1,280 bytes and more lost; of smaller ones 0 of 160", "before: 560 of 560", "since: 32 of 160 (20 %)",
		"10.77.2.2:8080: 20 answers a second before, 0 since", "2,896 of 13,032 bytes acknowledged; holes opened: 2, never filled: 2; the longest silence lasted 31.1 s, up to the end"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
}

// Sources that are missing, one-sided, empty, of one point, all equal, ten years long or of 10,000 peers.
func TestPageOfOddViews(t *testing.T) {
	one := outageView()
	one.Last, one.Services[0].Open = one.First, view.Level{}
	equal := outageView()
	for i := range equal.Services[0].Requests {
		equal.Services[0].Requests[i], equal.Services[0].Answered[i] = 7, 7
	}
	long := outageView()
	long.Width, long.Last = int64(10*365*24*time.Hour/600), long.First.Add(10*365*24*time.Hour)
	oneWay := outageView()
	oneWay.Flows = oneWay.Flows[:1]
	oneWay.Resolvers[0].Answered = nil
	peers := outageView()
	for i := range 10_000 {
		peers.Flows = append(peers.Flows, view.Direction{From: fmt.Sprintf("10.9.%d.%d", i/256, i%256), To: server})
	}
	wide := outageView()
	for i := range wide.Host.SYN {
		wide.Host.SYN[i] = math.MaxUint32
	}
	in, d := outage()
	for name, v := range map[string]*view.View{"none": nil, "empty": {Width: 1}, "one point": one, "equal": equal, "ten years": long, "one-way": oneWay,
		"10,000 peers": peers, "huge": wide} {
		t.Run(name, func(t *testing.T) {
			elements(t, renderPage(t, in, d, v, Options{}))
			if v == nil {
				return
			}
			for _, s := range pageSections(in, d, v) {
				if s.Claim.En == "" || s.Claim.Ko == "" || s.Picture == nil && (s.Without.En == "" || s.Without.Ko == "") {
					t.Errorf("%s says nothing", s.ID)
				}
				if s.Picture != nil {
					layout(t, s)
				}
			}
		})
	}
}

func TestHealthyPage(t *testing.T) {
	in, d := healthy()
	page := renderPage(t, in, d, outageView(), Options{})
	elements(t, page)
	if !strings.Contains(page, "No fault found: 5 suspects ruled out, 4 not assessable from this input.") || strings.Contains(page, `id="chain"`) {
		t.Error("the page of a healthy capture")
	}
	d.Coverage.Packets, d.Coverage.Connections, d.Coverage.DNS = 0, 0, 0
	if page := renderPage(t, in, d, nil, Options{}); !strings.Contains(page, "Nothing to diagnose") {
		t.Error("the page of an empty capture")
	}
}

func TestSeveralCauses(t *testing.T) {
	in, d := outage()
	for i := range 9 {
		f := fakeFinding("close-wait", analyze.Subject{Kind: analyze.SubjectService, Host: "10.1.1.1", Port: uint16(i + 1)}, float64(i), "Other", "다른 것", "Another one.", "다른 원인.")
		f.Role = analyze.Root
		d.Findings, d.Roots = append(d.Findings, f), append(d.Roots, f.ID)
	}
	page := renderPage(t, in, d, outageView(), Options{})
	elements(t, page)
	if n := strings.Count(page, "<article"); n != maxIncidents {
		t.Errorf("%d incidents", n)
	}
	if n := strings.Count(page, "10.1.1.1:"); n < 9 {
		t.Errorf("only %d of the causes are named", n)
	}
}

// hostileNames are what strangers may call themselves.
var hostileNames = []string{`</svg><script>alert(1)</script>`, `"><img src=x onerror=y>`, `' onload='x`, "a\x00b", "\u202egpj.exe", "\xff\xfe",
	strings.Repeat("x", 255) + ".example", "{{.}}", "]]>", "<!--", "&lt;b&gt;", "</title>", "`</code>`", "\u2066\u200b\ufeff"}

// A hostile name leaves no element and no attribute of its own.
func TestHostilePage(t *testing.T) {
	page := func(name string) string {
		in, d := outage()
		v := outageView()
		in.Files[0].Name, in.Blind = name, []string{name}
		d.Coverage.Sources = []string{name}
		for _, f := range d.Findings {
			f.Title.En += name
			f.Title.Ko += name
			f.Summary.En, f.Summary.Ko = name+f.Summary.En, name+f.Summary.Ko
			f.Filter, f.Host = name, name
			f.Evidence = []analyze.Evidence{{At: f.Onset, Flow: name, Note: name}}
			f.Next = []analyze.Text{{En: "Do " + name, Ko: name}}
		}
		for i := range d.Steps {
			d.Steps[i].Reason = analyze.Text{En: name, Ko: name + "."}
		}
		v.Changes[0].What, v.Resolvers[0].Server = name, upstream
		v.Services[0].Addr = server
		v.Connections[0].Client = name
		return renderPage(t, in, d, v, Options{})
	}
	harmless := elements(t, page("name"))
	for _, name := range hostileNames {
		p := page(name)
		if strings.ContainsAny(p, "\x00\u202e\u2066\ufeff") {
			t.Errorf("%q is not made visible", name)
		}
		// A backtick begins a command, which is an element of ours.
		if n := elements(t, strings.ReplaceAll(p, "src=x", "")); n != harmless && !strings.Contains(name, "`") {
			t.Errorf("%q: %d elements, harmless %d", name, n, harmless)
		}
	}
	if p := page("\u202egpj.exe"); !strings.Contains(p, "⟨U&#43;202E⟩gpj.exe") {
		t.Error("the mark that turns a text around is not shown")
	}
}

// With --redact no address and no name is left, and equal ones are still equal.
func TestRedact(t *testing.T) {
	in, d := outage()
	v := outageView()
	d.Findings[1].Summary.En += " (A secret.example.org, at 2001:db8::7.)"
	d.Findings[1].Summary.Ko += " (A secret.example.org)"
	d.Findings[2].Host = "db-prod-1"
	d.Findings[2].Summary.En += " On db-prod-1."
	in, d, v = Redact(in, d, v)
	page := renderPage(t, in, d, v, Options{})
	elements(t, page)
	for _, secret := range []string{"10.77.", "secret", "example", "2001:db8", "db-prod", "server.pcap", "eth0"} {
		if i := strings.Index(page, secret); i >= 0 {
			t.Errorf("%q is left: %s", secret, page[max(i-80, 0):min(i+60, len(page))])
		}
	}
	for _, want := range []string{"host-1", "host-2", "name-1", "input-1", "1,412 bytes", ":8080"} {
		if !strings.Contains(page, want) {
			t.Errorf("%q is not there", want)
		}
	}
	if strings.Contains(page, `<title>jindan: No`) {
		t.Error("the verdict is another one")
	}
}

// FuzzPage draws views of random numbers: whatever they are, the page is well-formed and within its cap.
//
// At most 300x.
func FuzzPage(f *testing.F) {
	for seed := range int64(8) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed int64) {
		r := rand.New(rand.NewSource(seed))
		in, d := outage()
		v := outageView()
		n := func() uint32 { return uint32(r.Uint64() >> (33 + r.Intn(31))) }
		v.Width = 1 + r.Int63n(1<<uint(1+r.Intn(55)))
		v.Start = capture.Instant(r.Int63() >> uint(r.Intn(4)))
		v.Last = v.Start.Add(time.Duration(r.Int63n(min(v.Width, math.MaxInt64/600) * 600)))
		for _, c := range []view.Count{v.Services[0].Answered, v.Services[0].GaveUp, v.Host.SYN, v.Resolvers[0].Unanswered} {
			for i := range c {
				c[i] = n() * uint32(r.Intn(2))
			}
		}
		for i := range v.Listeners[0].Queue.Max {
			v.Listeners[0].Queue.Max[i], v.Listeners[0].Queue.Seen[i] = n(), r.Intn(3) > 0
		}
		for i := range v.Flows {
			for s := range view.Slots {
				for c := range view.Classes {
					v.Flows[i].Sent[s][c], v.Flows[i].Missing[s][c], v.Flows[i].Again[s][c] = n(), n(), n()
				}
			}
		}
		c := &v.Connections[0]
		c.Segments = nil
		at := c.First
		for range r.Intn(view.MaxSegments + 1) {
			at = at.Add(time.Duration(n()))
			c.Segments = append(c.Segments, view.Segment{At: at, Server: r.Intn(2) == 0, Flags: uint8(n()), Seq: int64(int32(r.Uint32())), Len: n() % 70000, Window: int64(n()) - 1,
				Ack: int64(int32(r.Uint32())), Again: r.Intn(4) == 0, SACK: [][2]int64{{int64(n()), int64(n())}}})
		}
		for _, x := range d.Findings {
			x.Onset = x.Onset.Add(time.Duration(r.Int63n(1 << uint(1+r.Intn(50)))))
		}
		elements(t, renderPage(t, in, d, v, Options{}))
	})
}
