package report

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"jindan/rules"
)

// manual is a manual page being written.
type manual struct {
	page
	Lang
	set *rules.Set
}

// FindPage returns the rule or the step that name means: an id, or the number of a step such
// as T1. One of the two is nil, or both.
func FindPage(set *rules.Set, name string) (*rules.Rule, *rules.Step) {
	name = strings.ToLower(strings.ReplaceAll(strings.TrimSpace(name), "_", "-"))
	if r := set.Rule(name); r != nil {
		return r, nil
	}
	name = strings.TrimPrefix(name, "jd-")
	for _, s := range set.Steps {
		if s.ID == name || strings.EqualFold(s.Ref, name) {
			return nil, s
		}
	}
	return nil, nil
}

// RulePage writes the manual page of a rule.
func RulePage(w io.Writer, set *rules.Set, r *rules.Rule, o Options) error {
	m := newManual(set, o)
	m.title(r.ID, r.Name(string(m.Lang)))
	for _, id := range r.Steps {
		s := set.Step(id)
		if s == nil {
			continue
		}
		m.section(m.pick("STEP", "진단 단계"))
		m.para(m.text(s.Title) + " (" + s.ID + ", " + s.Ref + ")")
		m.team(s)
		m.section(m.pick("CONFIRMED BY", "확인 근거"))
		m.para(m.text(s.Confirms))
		m.section(m.pick("RULED OUT BY", "배제 근거"))
		m.para(m.text(s.RulesOut))
	}
	var alike []string
	for _, t := range r.LookAlikes {
		alike = append(alike, m.text(t))
	}
	m.bullets(m.pick("LOOK-ALIKES", "유사 현상"), alike)
	m.decision(r)
	m.measures(r)
	m.links(r)
	m.next(r)
	m.bullets(m.pick("SOURCES", "출처"), r.Citation)
	_, err := io.WriteString(w, m.String())
	return err
}

// StepPage writes the manual page of a step.
func StepPage(w io.Writer, set *rules.Set, s *rules.Step, o Options) error {
	m := newManual(set, o)
	m.title(s.ID+" ("+s.Ref+")", m.text(s.Title))
	m.section(m.pick("WHERE IT COMES FROM", "유래"))
	m.team(s)
	m.section(m.pick("CONFIRMED BY", "확인 근거"))
	m.para(m.text(s.Confirms))
	m.section(m.pick("RULED OUT BY", "배제 근거"))
	m.para(m.text(s.RulesOut))
	m.section(m.pick("LOOK-ALIKES", "유사 현상"))
	m.para(m.text(s.LookAlikes))
	m.section(m.pick("WHAT TO DO", "다음 조치"))
	m.para(m.text(s.Next))
	m.section(m.pick("NEEDS", "필요한 입력"))
	var needs []string
	for _, n := range s.Needs {
		needs = append(needs, strings.Join(n, " or "))
	}
	if len(needs) > 0 {
		m.para(inputList(needs, m.Lang) + ". " + m.pick("Without: ", "없으면: ") + m.text(s.NotAssessable))
	} else {
		m.para(m.text(s.NotAssessable))
	}
	if len(s.Rules) > 0 {
		m.section(m.pick("RULES", "규칙"))
		for _, id := range s.Rules {
			if r := m.set.Rule(id); r != nil {
				m.bullet(r.ID + ": " + r.Name(string(m.Lang)))
			}
		}
	}
	_, err := io.WriteString(w, m.String())
	return err
}

func newManual(set *rules.Set, o Options) *manual {
	o = o.withDefaults()
	return &manual{page: page{width: o.Width, gutter: 4, color: o.Color}, Lang: o.Lang, set: set}
}

// text is t as a sentence of its own: with a capital at its start.
func (m *manual) text(t rules.Text) string {
	s := Clean(m.pick(t.En, t.Ko))
	if s != "" && isLower(s[0]) {
		s = strings.ToUpper(s[:1]) + s[1:]
	}
	return s
}

func (m *manual) title(id, title string) {
	m.lines = append(m.lines, m.style(bold, id)+" — "+m.style(bold, Clean(title)))
}

func (m *manual) section(s string) {
	m.blank()
	m.lines = append(m.lines, m.style(bold, s))
}

func (m *manual) para(s string) {
	if s != "" {
		m.put("", 0, m.gutter, s, plain)
	}
}

func (m *manual) bullet(s string) { m.put("  -", 3, m.gutter, s, plain) }

// bullets writes a section of them, if there are any.
func (m *manual) bullets(section string, list []string) {
	if len(list) == 0 {
		return
	}
	m.section(section)
	for _, s := range list {
		m.bullet(s)
	}
}

// team tells what the cause-analysis team did, in its own words where there are any.
func (m *manual) team(s *rules.Step) {
	m.para(m.text(s.Team))
	if s.Quote != "" {
		m.para("“" + Clean(s.Quote) + "”")
	}
	if s.Source != "" {
		m.para(m.pick("Source: ", "출처: ") + Clean(s.Source))
	}
}

// decision writes when the rule finds something, and where its numbers come from.
func (m *manual) decision(r *rules.Rule) {
	m.section(m.pick("DECISION", "판정"))
	m.para(m.pick("Found when:", "발견 조건:"))
	m.put("", 0, m.gutter+4, r.When, plain)
	if r.Clear != "" {
		m.para(m.pick("Ruled out when:", "배제 조건:"))
		m.put("", 0, m.gutter+4, r.Clear, plain)
	}
	held := m.pick("at once", "즉시")
	if r.For > 0 {
		held = fmt.Sprintf(m.pick("once it has held for %s", "%s 동안 지속되면"), m.span(r.For))
	}
	held = fmt.Sprintf(m.pick("Severity %s, %s; over when it has not held for %s, and sooner where the same traffic passes again.",
		"심각도 %s, %s 발견. %s 동안 해당하지 않으면 해소. 같은 트래픽이 다시 정상이면 그보다 먼저 해소."), m.Severity(r.Severity), held, m.span(r.KeepFor))
	m.para(held)
	for _, w := range r.SeverityWhen {
		m.para(fmt.Sprintf(m.pick("Severity %s when: %s", "심각도 %s: %s"), m.Severity(w.Severity), w.When))
	}
	var list []string
	for _, t := range r.Thresholds {
		v := t.Text
		if t.Unit != "" && t.Unit != "s" && t.Unit != "share" {
			v += " " + m.unit(t.Unit)
		}
		source := t.Source
		if m.Lang == Korean && t.Korean != "" {
			source = t.Korean
		}
		list = append(list, fmt.Sprintf("%s = %s. %s", t.Name, v, source))
	}
	m.bullets(m.pick("THRESHOLDS", "임계값"), list)
}

// koreanUnits are the units of thresholds: a test holds them against the catalogue.
var koreanUnits = map[string]string{
	"connections": "연결", "times": "배", "probability": "확률", "requests": "요청", "segments": "세그먼트", "attempts": "시도", "packets": "패킷",
	"answers": "응답", "resets": "RST", "queries": "질의", "peers": "상대", "networks": "네트워크", "calls": "호출", "rounds": "회차", "requests per second": "요청/초",
	"repetitions": "재전송", "handshakes": "핸드셰이크", "sockets": "소켓", "ports": "포트", "packets per second": "패킷/초", "names": "이름",
	"lookups": "이름 해석", "hosts": "호스트", "handshakes per second": "핸드셰이크/초", "clients": "클라이언트", "attempts per second": "시도/초",
}

// unit is a unit of thresholds in the language; a user's own unit stays as it is.
func (m *manual) unit(u string) string {
	if ko, ok := koreanUnits[u]; ok && m.Lang == Korean {
		return ko
	}
	return u
}

// measures writes what the conditions can name beside the thresholds.
func (m *manual) measures(r *rules.Rule) {
	if base := m.set.Rule(r.FeaturesOf); base != nil {
		r = base
	}
	var list []string
	for _, f := range r.Features() {
		line := strings.Join(f.Names, ", ") + " (" + f.Type
		if f.Unit != "" {
			line += ", " + f.Unit
		}
		line += ")"
		if meaning := Clean(m.pick(f.Meaning.En, f.Meaning.Ko)); meaning != "" {
			line += ": " + meaning
		}
		list = append(list, line)
	}
	m.bullets(m.pick("MEASURES", "측정값"), list)
}

// links writes what can cause what the rule finds, and what it can cause.
func (m *manual) links(r *rules.Rule) {
	var from, to []string
	for _, e := range m.set.Edges {
		if e.To.Rule == r.ID {
			from = append(from, e.From.String()+": "+m.text(e.Why))
		}
		if e.From.Rule == r.ID {
			to = append(to, e.To.String()+": "+m.text(e.Why))
		}
	}
	for i, list := range [][]string{from, to} {
		m.bullets([]string{m.pick("CAN FOLLOW FROM", "원인이 될 수 있는 것"), m.pick("CAN LEAD TO", "결과가 될 수 있는 것")}[i], slices.Compact(list))
	}
}

// examples stand in for measurements in the commands of a manual page.
var examples = map[string]any{"cliff": 1400, "largest_passed": 1300, "big_loss": 0.9, "dns_big_unanswered": 1,
	"idle_age": 300.0, "foreign_ttl": 1, "own_listener": true}

// next writes the next actions as a finding would, with words in the place of addresses.
// What differs between the rule's classes says for which it is.
func (m *manual) next(r *rules.Rule) {
	classes := r.Classes
	if len(classes) == 0 {
		classes = []string{""}
	}
	type action struct {
		text    string
		classes []string
	}
	var all []action
	for _, class := range classes {
		features := map[string]any{}
		for k, v := range examples {
			features[k] = v
		}
		if class != "" {
			features["class"] = class
		}
		subject := map[string]any{"host": "HOST", "peer": "PEER", "direction": "inbound", "segment": class}
		next, err := r.Next(features, subject)
		if err != nil { // an example of another type than the rule's feature
			if next, err = r.Next(map[string]any{}, subject); err != nil {
				return
			}
		}
		for _, t := range next {
			s := m.text(t)
			i := slices.IndexFunc(all, func(a action) bool { return a.text == s })
			if i < 0 {
				all = append(all, action{text: s})
				i = len(all) - 1
			}
			all[i].classes = append(all[i].classes, class)
		}
	}
	if len(all) == 0 {
		return
	}
	m.section(m.pick("WHAT TO DO (numbers are examples)", "다음 조치(수치는 예)"))
	for i, a := range all {
		s := a.text
		if len(a.classes) < len(classes) {
			s = "(" + strings.Join(a.classes, ", ") + ") " + s
		}
		m.put(fmt.Sprintf("  %d.", i+1), Width(fmt.Sprint(i+1))+3, m.gutter+1, s, plain)
	}
}
