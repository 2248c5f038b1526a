package main

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"

	"jindan/analyze/points"
	"jindan/capture"
	"jindan/capture/decode"
	"jindan/capture/pcapfile"
	"jindan/cmd/internal/cli"
	"jindan/cmd/internal/diagnose"
)

// pointFiles are the captures of one point.
type pointFiles struct {
	name  string
	files []string
}

// parsePoints reads NAME=FILE arguments; several of one name are one point.
func parsePoints(args []string) ([]pointFiles, error) {
	var all []pointFiles
	for _, a := range args {
		name, file, ok := strings.Cut(a, "=")
		if !ok || name == "" || file == "" {
			return nil, fmt.Errorf("--point %q: use NAME=FILE, such as client=client.pcap", a)
		}
		if file == "-" {
			return nil, fmt.Errorf("--point %s: points are read twice, which standard input cannot be", a)
		}
		i := slices.IndexFunc(all, func(p pointFiles) bool { return p.name == name })
		if i < 0 {
			i = len(all)
			all = append(all, pointFiles{name: name})
		}
		all[i].files = append(all[i].files, file)
	}
	if len(all) < 2 || len(all) > points.MaxPoints {
		return nil, fmt.Errorf("--point is given for %d points; 2 to %d can be compared", len(all), points.MaxPoints)
	}
	return all, nil
}

// compared is what the comparison of points gave.
type compared struct {
	report *points.Report
	closer []diagnose.Part // what is looked at closer
}

// open opens what is looked at closer.
func (c *compared) open() (*diagnose.Input, error) {
	in, err := diagnose.OpenParts(c.closer, nil)
	if err == nil {
		in.Points = c.report
	}
	return in, err
}

// reopen opens it with decoders of the caller's.
func (c *compared) reopen(decoder func() pcapfile.Decoder) (*diagnose.Input, error) {
	return diagnose.OpenParts(c.closer, decoder)
}

// files are those that are looked at closer.
func (c *compared) files() (all []string) {
	for _, p := range c.closer {
		all = append(all, p.Files...)
	}
	return all
}

// comparePoints reads the captures of points twice: to learn how their clocks and the path lie, and to follow each packet. What is
// wrong with a file is told when the point that is looked at closer is read; the rest of it counts.
func (a *app) comparePoints(ctx context.Context, args []string, row func(*points.Row)) (*compared, error) {
	named, err := parsePoints(args)
	if err != nil {
		return nil, err
	}
	was := debug.SetMemoryLimit(-1)
	cli.LimitHeap(int64(len(named)) * pointMemory)
	defer func() {
		debug.SetMemoryLimit(was)
		debug.FreeOSMemory() // before one of them is looked at closer
	}()
	var sketches []*points.Sketch
	for _, p := range named {
		s := new(points.Sketch)
		if err := a.readPoint(ctx, p, func(b *capture.Batch) {
			for i := range b.Obs {
				s.Observe(&b.Obs[i])
			}
		}); err != nil {
			return nil, err
		}
		sketches = append(sketches, s)
	}
	al := points.Align(sketches)
	for i := range named {
		for j := range i {
			if al.Same[i][j] {
				return nil, fmt.Errorf("--point %s and --point %s: the same capture, or two of one place: all that both show has the same time at both, so that nothing lies between",
					named[j].name, named[i].name)
			}
		}
	}
	order, guessed, same := al.Order()
	if !same {
		var names []string
		for _, i := range order {
			names = append(names, named[i].name)
		}
		a.Log.Warn().Msgf("packets pass the points in another order than the given one: %s", strings.Join(names, ", "))
	}
	for _, g := range guessed {
		a.Log.Warn().Msgf("nothing tells whether packets pass %s or %s first: one of them shows one direction only, or too little; they are taken in the given order",
			named[g[0]].name, named[g[1]].name)
	}
	// From here on points are in the order of the path.
	var pts []points.Point
	o := points.Options{Row: row}
	var sources []capture.Source
	var owner []int
	for i, k := range order {
		shift := al.Shift[k]
		s := sketches[k]
		pts = append(pts, points.Point{Name: named[k].name, Shift: shift, First: s.First.Add(shift), Last: s.Last.Add(shift), Until: al.Until[k].Add(shift), Joined: al.Joined[k], Holds: s.Holds(), Lacks: s.Lacks()})
		for j, l := range order {
			o.Before[i][j] = al.Before[k][l]
		}
		in, err := diagnose.OpenWith(named[k].files, unverified)
		if err != nil {
			return nil, err
		}
		defer in.Close()
		for _, src := range in.Sources {
			sources = append(sources, diagnose.Shifted{Source: src, By: capture.Instant(shift)})
			owner = append(owner, i)
		}
	}
	an := points.New(pts, o)
	err = capture.Merge(ctx, sources, 0, func(b *capture.Batch) error {
		for i := range b.Obs {
			an.Observe(owner[b.Obs[i].Source], &b.Obs[i])
		}
		return nil
	})
	if err := fatal(err); err != nil {
		return nil, err
	}
	r := an.Close()
	c := &compared{report: r}
	for i := range r.Looks {
		l := &r.Looks[i]
		c.closer = append(c.closer, diagnose.Part{Files: named[order[l.Point]].files, By: r.By(l)})
	}
	return c, nil
}

// pointMemory is where comparing points begins to collect garbage sooner, for each of them: 200 MiB are promised, the program itself included.
const pointMemory = 150 << 20

// unverified decodes without checksums, which say nothing of a point: what it saw passed it, damaged or not.
func unverified() pcapfile.Decoder { return decode.New() }

// readPoint reads the captures of one point as one.
func (a *app) readPoint(ctx context.Context, p pointFiles, take func(*capture.Batch)) error {
	in, err := diagnose.OpenWith(p.files, unverified)
	if err != nil {
		return err
	}
	defer in.Close()
	if len(in.Unusable) > 0 {
		return errors.Join(in.Unusable...)
	}
	return fatal(in.Read(ctx, func(b *capture.Batch) error { take(b); return nil }))
}

// fatal leaves out what is wrong inside of files: what stands before it counts.
func fatal(err error) error {
	if errors.Is(err, context.Canceled) {
		return err
	}
	for _, e := range cli.SplitErrors(err) {
		var s *capture.SourceError
		if e != nil && !errors.As(e, &s) {
			return e
		}
	}
	return nil
}
