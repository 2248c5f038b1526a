package top

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"

	"jindan/analyze"
	"jindan/capture"
	"jindan/cmd/internal/report"
)

// history is how many states are kept, one a second or fewer: ten minutes at least.
const history = 600

// past is a State as packed JSON: ten minutes of an incident would take 70 MB unpacked.
type past struct {
	at   capture.Instant
	json []byte
}

// keep packs a state; one that JSON does not know is not kept.
func (m *Model) keep(s *State) {
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.BestSpeed)
	if err != nil || errors.Join(json.NewEncoder(z).Encode(s), z.Close()) != nil {
		return
	}
	m.past = append(m.past, past{s.At, bytes.Clone(b.Bytes())})
	if n := len(m.past) - history + 1; n > 0 {
		m.past = slices.Delete(m.past, 0, n)
	}
}

// Actions are what the keys do outside the terminal. Each says in a few words what came of it.
type Actions struct {
	Ack     func(id string) string
	Explain func(step string) string
	Write   func() string
}

// Model is the program on the terminal.
type Model struct {
	frame   Frame
	newest  *State
	past    []past // those before it, the newest last
	looked  *State // the one of past that is shown
	back    int    // how many states before the newest one is shown
	gone    *Gone
	actions Actions
	typing  bool
	explain string
	scroll  int
}

// NewModel returns a Model that shows frames like f.
func NewModel(f Frame, a Actions) *Model {
	if f.Screen == 0 {
		f.Screen = Incident
	}
	return &Model{frame: f, actions: a}
}

// Over tells the Model that no state will follow.
type Over struct{ Why string }

// Gone tells the Model, again and again, that the agent does not answer; the next State ends it.
type Gone struct {
	Since time.Duration
	Why   string
}

// Init implements tea.Model.
func (m *Model) Init() tea.Cmd { return nil }

// said is what an action has said.
type said string

// explained is the manual page of a step.
type explained string

// Update implements tea.Model.
func (m *Model) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch x := msg.(type) {
	case tea.WindowSizeMsg:
		m.frame.Width, m.frame.Height = x.Width, x.Height
	case *State:
		if m.newest != nil {
			m.keep(m.newest)
		}
		m.newest = x
		if m.frame.Frozen || m.back > 0 {
			m.back = min(m.back+1, len(m.past)) // the same moment stays in sight
		}
		m.gone = nil
	case Gone:
		m.gone = &x
	case Over:
		m.frame.Note = x.Why
	case said:
		m.frame.Note = string(x)
	case explained:
		m.explain, m.scroll = string(x), 0
	case tea.KeyPressMsg:
		return m, m.key(x.String(), x.Text)
	}
	return m, nil
}

func (m *Model) key(key, text string) tea.Cmd {
	f := &m.frame
	if m.typing {
		switch key {
		case "enter":
			m.typing = false
		case "esc", "ctrl+c":
			m.typing, f.Filter = false, ""
		case "backspace":
			if r := []rune(f.Filter); len(r) > 0 {
				f.Filter = string(r[:len(r)-1])
			}
		default:
			f.Filter += text
		}
		f.Selected = 0
		m.prompt()
		return nil
	}
	f.Note = ""
	if m.explain != "" && key != "up" && key != "down" && key != "q" && key != "ctrl+c" {
		m.explain = ""
		return nil
	}
	switch key {
	case "q", "ctrl+c":
		return tea.Quit
	case "ctrl+z":
		return tea.Suspend
	case "1", "2", "3", "4", "5", "6":
		f.Screen, f.Selected, f.Open, f.Help = int(key[0]-'0'), 0, false, false
	case "up", "k":
		f.Selected, m.scroll = max(f.Selected-1, 0), max(m.scroll-1, 0)
	case "down", "j":
		m.scroll++
		if s := m.state(); s != nil {
			fs, steps := f.Rows(s)
			f.Selected = max(min(f.Selected+1, max(len(fs), len(steps))-1), 0)
		}
	case "enter":
		f.Open = !f.Open
	case "esc":
		f.Open, f.Help, f.Filter = false, false, ""
	case "/":
		m.typing = true
		m.prompt()
	case "s":
		f.ByRate = !f.ByRate
	case "space":
		f.Frozen = !f.Frozen
		if !f.Frozen {
			m.back = 0
		}
	case "left":
		m.back = min(m.back+1, len(m.past))
	case "right":
		m.back = max(m.back-1, 0)
	case "l":
		if f.Lang == report.Korean {
			f.Lang = report.English
		} else {
			f.Lang = report.Korean
		}
	case "?", "h":
		f.Help = !f.Help
	case "a", "e", "w", "y":
		return m.act(key)
	}
	return nil
}

func (m *Model) prompt() {
	if m.frame.Note = ""; m.typing {
		m.frame.Note = "/" + m.frame.Filter
	}
}

// act does what a key asks for outside the terminal. What waits for others runs beside the program.
func (m *Model) act(key string) tea.Cmd {
	s := m.state()
	if s == nil {
		return nil
	}
	fs, steps := m.frame.Rows(s)
	var f *analyze.Finding
	if len(fs) > 0 {
		f = fs[min(m.frame.Selected, len(fs)-1)]
	}
	switch {
	case key == "w" && m.actions.Write != nil:
		return func() tea.Msg { return said(m.actions.Write()) }
	case key == "e" && m.actions.Explain != nil:
		step := ""
		if len(steps) > 0 {
			step = steps[min(m.frame.Selected, len(steps)-1)].Step
		} else if f != nil && len(f.Steps) > 0 {
			step = f.Steps[0]
		}
		if step != "" {
			return func() tea.Msg { return explained(m.actions.Explain(step)) }
		}
	case key == "a" && m.actions.Ack != nil && f != nil:
		return func() tea.Msg { return said(m.actions.Ack(f.ID)) }
	case key == "y" && f != nil && f.Filter != "":
		m.frame.Note = m.frame.pick("copied: ", "복사: ") + report.Clean(f.Filter)
		return tea.SetClipboard(report.Clean(f.Filter))
	}
	m.frame.Note = m.frame.pick("nothing to do that to", "대상이 없습니다")
	return nil
}

// state is the one that is shown.
func (m *Model) state() *State {
	if m.back == 0 || len(m.past) == 0 {
		return m.newest
	}
	p := m.past[max(len(m.past)-m.back, 0)]
	if m.looked != nil && m.looked.At == p.at {
		return m.looked
	}
	s := new(State)
	z, err := gzip.NewReader(bytes.NewReader(p.json))
	if err != nil || json.NewDecoder(z).Decode(s) != nil {
		return m.newest
	}
	m.looked = s
	return s
}

// Text is what stands on the terminal.
func (m *Model) Text() string {
	f := m.frame
	if m.explain != "" {
		lines := strings.Split(m.explain, "\n")
		lines = lines[min(m.scroll, max(len(lines)-f.Height+1, 0)):]
		for i := range lines {
			lines[i] = strings.TrimRight(fit(lines[i], f.Width), " ")
		}
		return strings.Join(lines[:min(len(lines), max(f.Height-1, 1))], "\n")
	}
	if m.back > 0 {
		f.Back = max(m.newest.At.Sub(m.state().At), 1)
	}
	if m.gone != nil {
		f.Gone = fmt.Sprintf(f.pick("agent gone since %.0f s: %s", "에이전트 응답 없음, %.0f초 경과: %s"), m.gone.Since.Seconds(), report.Clean(m.gone.Why))
	}
	return f.String(m.state())
}

// View implements tea.Model.
func (m *Model) View() tea.View {
	v := tea.NewView(m.Text())
	v.AltScreen = true
	return v
}

// MaxFPS is how often the terminal is written at most; a state comes every second.
const MaxFPS = 4

// Every is how often a state is taken.
const Every = time.Second
