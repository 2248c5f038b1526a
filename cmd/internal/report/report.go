// Package report writes what jindan found: as text for people, in English and
// Korean, and as JSON lines for programs.
package report

import (
	"io"
	"time"

	"jindan/analyze"
)

// Options of a text report. The zero value is English, without colours, in UTC, for
// a terminal of DefaultWidth columns.
type Options struct {
	Lang    Lang
	Width   int            // columns; 0: DefaultWidth
	Color   bool           // SGR colours
	Verbose bool           // evidence, filters, findings of severity info, all steps
	Summary bool           // the input and the cause only
	Now     bool           // what is over is told in a line, though nothing else is wrong
	Zone    *time.Location // of printed times; nil: UTC
	// Catalogue names steps and look-alikes; nil: ids stand for titles.
	Catalogue Catalogue
}

// DefaultWidth is the number of columns when the terminal does not say.
const DefaultWidth = 100

// maxWidth keeps lines readable on wide terminals.
const maxWidth = 120

// firstScreen is how many lines the report may take unless Verbose is set.
const firstScreen = 40

// Catalogue is what a report asks of the rules.
type Catalogue interface {
	// StepTitle is the title of a step, empty if it is unknown.
	StepTitle(step string) analyze.Text
	// LookAlikes are what a finding of the rule could be confused with.
	LookAlikes(rule string) []analyze.Text
	// Needs names what the step needs and a capture lacks, empty if packets are enough.
	Needs(step string) analyze.Text
}

// Input is what is known of the input beside the observations in it.
type Input struct {
	Files []File
	// Interrupted says that the user stopped the reading.
	Interrupted bool
	// Blind says what could not be looked at, and why: nothing is called healthy then.
	Blind []string
	// Strangers are addresses given as this host's that are nowhere in the input.
	Strangers []string
	// Digest and Rules identify the input and the catalogue on a page; empty: they are not told.
	Digest, Rules string
	// Part says which part of the input was looked at; empty: all of it.
	Part string
}

// File is one capture file of the input.
type File struct {
	Name      string
	Packets   uint64
	Unread    bool   // could not be opened
	Damage    string // why it could not be read to its end; empty: it could
	Resumed   bool   // it was read on behind the damage
	Cut       bool   // it ends inside its last packet
	CutOffset int64
	NoTime    uint64 // packets without a time of their own
	LinkType  string // the link type that cannot be read and that all packets have; empty: some can
}

func (o Options) withDefaults() Options {
	if o.Zone == nil {
		o.Zone = time.UTC
	}
	if o.Width <= 0 {
		o.Width = DefaultWidth
	}
	o.Width = max(min(o.Width, maxWidth), 40)
	if o.Lang == "" {
		o.Lang = English
	}
	return o
}

// Text writes the diagnosis for people. Without Options.Verbose it fits on one screen.
func Text(w io.Writer, in Input, d *analyze.Diagnosis, o Options) error {
	o = o.withDefaults()
	var s string
	for _, dt := range details {
		r := newText(in, d, o, dt)
		s = r.String()
		if o.Verbose || len(r.lines) <= firstScreen {
			break
		}
	}
	_, err := io.WriteString(w, s)
	return err
}

// detail says how much of each part is written.
type detail struct {
	roots        int
	lookAlikes   int
	consequences int // how many
	words        int // of a consequence: 1 one line, 2 its first sentence on two lines, 3 all
	ruledOut     int // with their reasons; the others by name
	next         int
	pastLines    int
}

const all = 1 << 20

// details from the richest to the poorest: the first that fits the screen is taken.
var details = []detail{
	{all, all, all, 3, all, all, all},
	{4, 4, all, 2, all, 5, 16},
	{4, 3, 16, 2, 6, 4, 16},
	{3, 3, 12, 2, 5, 3, 8},
	{3, 2, 10, 2, 4, 2, 8},
	{3, 1, 10, 2, 2, 2, 8},
	{3, 1, 10, 1, 2, 2, 6},
	{3, 1, 8, 1, 1, 2, 6},
	{3, 1, 8, 1, 0, 1, 6},
	{3, 0, 6, 1, 0, 2, 5},
	{3, 0, 5, 1, 0, 1, 4},
	{2, 0, 4, 1, 0, 1, 3},
	{2, 0, 3, 1, 0, 1, 3},
}
