package diagnose

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"jindan/analyze/points"
	"jindan/capture"
	"jindan/capture/decode"
	"jindan/capture/pcapfile"
	"jindan/capture/recording"
	"jindan/cmd/internal/cli"
	"jindan/cmd/internal/report"
)

// Input is a set of capture files that are read as one.
type Input struct {
	Files []captureFile
	// recordings are directories that the agent wrote; their packet files are in files as well.
	recordings []*recording.Recording
	Sources    []capture.Source
	Names      []string
	// Unusable are the arguments and files that could not be opened, with the reason.
	Unusable []error
	refused  []report.File
	// Points is what the comparison of several points found, of which this is one.
	Points *points.Report
	// Given are addresses that are said to be this host's and that no packet has had so far.
	Given []netip.Prefix
	Only  *Narrow // the part that is looked at; nil: all of it
}

// captureFile is a file of packets.
type captureFile interface {
	capture.Source
	Progress() (read, size int64)
	Stats() pcapfile.Stats
}

// openAtOnce is how many files are kept open while they wait for their turn; more of them wait closed.
const openAtOnce = 8

// openFile opens one of n files.
func openFile(name string, n int, decoder func() pcapfile.Decoder) (captureFile, error) {
	if n <= openAtOnce {
		return pcapfile.Open(name, decoder())
	}
	return pcapfile.OpenLater(name, decoder)
}

// Open opens what args name. What cannot be opened is noted, not fatal, as long as
// something can; with an error nothing is open.
func Open(args []string) (*Input, error) {
	return open(args, func() pcapfile.Decoder { return decode.New().Verify() }, func() pcapfile.Decoder { return decode.New() })
}

// OpenWith is Open with decoders of the caller's.
func OpenWith(args []string, decoder func() pcapfile.Decoder) (*Input, error) {
	return open(args, decoder, decoder)
}

// Part is the capture of one point of several that are read as one.
type Part struct {
	Files []string
	By    capture.Instant // is added to its times
}

// OpenParts opens what several points captured as if one had: what a proxy between them would have. Which of the packets a capturing host itself had sent
// or got, and its samples, are left out, for it is not the proxy. decoder may be nil.
func OpenParts(parts []Part, decoder func() pcapfile.Decoder) (*Input, error) {
	of := Open
	if decoder != nil {
		of = func(args []string) (*Input, error) { return OpenWith(args, decoder) }
	}
	if len(parts) == 1 {
		return of(parts[0].Files)
	}
	all := &Input{}
	for _, p := range parts {
		in, err := of(p.Files)
		if err != nil {
			all.Close()
			return in, err
		}
		for _, s := range in.Sources {
			all.Sources = append(all.Sources, bare{Shifted{s, p.By}})
		}
		all.Files, all.Names = append(all.Files, in.Files...), append(all.Names, in.Names...)
		all.recordings = append(all.recordings, in.recordings...)
		all.Unusable, all.refused = append(all.Unusable, in.Unusable...), append(all.refused, in.refused...)
	}
	return all, nil
}

// Shifted is a source whose times are those of another clock.
type Shifted struct {
	capture.Source
	By capture.Instant
}

// Read reads a batch and shifts its times.
func (s Shifted) Read(ctx context.Context, b *capture.Batch) error {
	err := s.Source.Read(ctx, b)
	for i := range b.Obs {
		b.Obs[i].At += s.By
	}
	b.Until += s.By
	return err
}

// bare is a source of packets without what tells whose they are.
type bare struct{ Shifted }

func (s bare) Read(ctx context.Context, b *capture.Batch) error {
	err := s.Shifted.Read(ctx, b)
	b.Obs = slices.DeleteFunc(b.Obs, func(o capture.Observation) bool { return o.Kind == capture.KindSample })
	for i := range b.Obs {
		p := &b.Obs[i].Packet
		p.Dir, p.MACs, p.SrcMAC, p.DstMAC = capture.DirUnknown, 0, 0, 0
	}
	return err
}

// open opens files with one decoder, and what the agent has recorded with another: the checksums there are not the packets' own.
func open(args []string, captured, recorded func() pcapfile.Decoder) (*Input, error) {
	in := &Input{}
	var plain []string
	for _, a := range args {
		dir, err := recordingIn(a)
		if dir == "" && err == nil {
			plain = append(plain, a)
			continue
		}
		if err == nil {
			err = in.openRecording(dir, recorded())
		}
		if err != nil {
			in.Unusable = append(in.Unusable, err)
			in.refused = append(in.refused, report.File{Name: a, Unread: true})
		}
	}
	var names []string
	if len(plain) > 0 || len(args) == 0 {
		var err error
		names, err = pcapfile.Expand(plain)
		in.Unusable = append(in.Unusable, cli.SplitErrors(err)...)
	}
	for _, name := range names {
		f, err := openFile(name, len(names), captured)
		if err != nil {
			in.Unusable = append(in.Unusable, err)
			in.refused = append(in.refused, report.File{Name: name, Unread: true})
			continue
		}
		in.Files = append(in.Files, f)
		in.Sources = append(in.Sources, f)
		in.Names = append(in.Names, f.Name())
	}
	if len(in.Sources) == 0 {
		return in, errors.Join(in.Unusable...)
	}
	return in, nil
}

// recordingIn is the recording that path names: path itself, or the only one in it, as of one network namespace; "" if there is none.
func recordingIn(path string) (string, error) {
	if recording.IsRecording(path) {
		return path, nil
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return "", nil // a file, or what opening it will say
	}
	var dirs []string
	for _, e := range entries {
		if !e.IsDir() {
			return "", nil // captures, some of them in directories
		}
		if dir := filepath.Join(path, e.Name()); recording.IsRecording(dir) {
			dirs = append(dirs, dir)
		}
	}
	switch len(dirs) {
	case 0:
		return "", nil
	case 1:
		return dirs[0], nil
	}
	return "", fmt.Errorf("%s has %d recordings, each of which is a host or a time by itself: name one, such as %s", path, len(dirs), dirs[len(dirs)-1])
}

// openRecording opens what the agent has kept.
func (in *Input) openRecording(dir string, d pcapfile.Decoder) error {
	var packets *pcapfile.File
	r, err := recording.Open(dir, func(name string) (capture.Source, error) {
		f, err := pcapfile.Open(name, d)
		packets = f
		return f, err
	})
	if err != nil {
		return err
	}
	if packets != nil { // a recording of samples alone has none
		in.Files = append(in.Files, packets)
	}
	in.recordings = append(in.recordings, r)
	in.Sources = append(in.Sources, r)
	in.Names = append(in.Names, r.Name())
	return nil
}

// Meta is what the agent said of itself, if the input is one recording and nothing else.
func (in *Input) Meta() (recording.Meta, bool) {
	if len(in.recordings) != 1 || len(in.Sources) != 1 {
		return recording.Meta{}, false
	}
	return in.recordings[0].Meta(), true
}

// Close closes the sources.
func (in *Input) Close() {
	for _, s := range in.Sources {
		s.Close()
	}
}

// Read gives everything to out in the order of time. Files that break off do not end
// it; their errors come back joined.
func (in *Input) Read(ctx context.Context, out func(*capture.Batch) error) error {
	err := capture.Merge(ctx, in.Sources, 0, func(b *capture.Batch) error {
		b, err := in.Only.part(b)
		if err != nil {
			return err
		}
		for i := 0; len(in.Given) > 0 && i < len(b.Obs); i++ {
			if o := &b.Obs[i]; o.Kind == capture.KindPacket {
				in.Given = slices.DeleteFunc(in.Given, func(g netip.Prefix) bool {
					return g.Contains(o.Packet.Src.Addr.Netip()) || g.Contains(o.Packet.Dst.Addr.Netip())
				})
			}
		}
		return out(b)
	})
	if errors.Is(err, errBehind) {
		return nil
	}
	return err
}

// Report says what was read. err is what read returned.
func (in *Input) Report(err error) report.Input {
	damage, resumed := map[string]string{}, map[string]bool{}
	for _, e := range cli.SplitErrors(err) {
		var s *capture.SourceError
		if errors.As(e, &s) {
			damage[s.Name] = broken(s.Err)
			var d *pcapfile.DamageError
			resumed[s.Name] = errors.As(s.Err, &d) && d.Skipped > 0
		}
	}
	r := report.Input{Interrupted: errors.Is(err, context.Canceled)}
	for _, g := range in.Given {
		if g.IsSingleIP() {
			r.Strangers = append(r.Strangers, g.Addr().String())
		} else {
			r.Strangers = append(r.Strangers, g.String())
		}
	}
	for _, f := range in.Files {
		s := f.Stats()
		r.Files = append(r.Files, report.File{Name: f.Name(), Packets: s.Packets, Cut: s.Cut, CutOffset: s.CutOffset,
			Damage: damage[f.Name()], Resumed: resumed[f.Name()], NoTime: s.NoTime, LinkType: unreadable(&s)})
	}
	r.Files = append(r.Files, in.refused...)
	return r
}

// unreadable names the link types of a file of which no packet can be decoded for that reason.
func unreadable(s *pcapfile.Stats) string {
	if s.Packets == 0 || s.Unread[capture.LossLinkType] != s.Packets {
		return ""
	}
	var names []string
	for _, l := range s.LinkTypes {
		if n := decode.LinkName(l.Type); n != "" {
			names = append(names, fmt.Sprintf("%d (LINKTYPE_%s)", l.Type, n))
		} else {
			names = append(names, strconv.Itoa(int(l.Type)))
		}
	}
	return strings.Join(names, ", ")
}

// broken says why and where a file cannot be read further.
func broken(err error) string {
	var d *pcapfile.DamageError
	if errors.As(err, &d) {
		return fmt.Sprintf("%s, at byte %d", d.What, d.Offset)
	}
	var m *recording.DamageError
	if errors.As(err, &m) {
		return fmt.Sprintf("%s: %s, at byte %d", filepath.Base(m.File), m.What, m.Offset)
	}
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err.Error()
	}
	return err.Error()
}

// Hosts reads what --local was told: addresses and prefixes of this host.
func Hosts(list []string) (all []netip.Prefix, err error) {
	for _, s := range list {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			var a netip.Addr
			if a, err = netip.ParseAddr(s); err == nil {
				a = a.WithZone("").Unmap()
				p = netip.PrefixFrom(a, a.BitLen())
			}
		}
		if err != nil {
			return nil, fmt.Errorf("--local %q: use an IP address such as 10.0.0.1 or 2001:db8::1, or a prefix such as 10.0.0.0/24", s)
		}
		all = append(all, p.Masked())
	}
	return all, nil
}

// Words splits a text at its commas; an empty one has none.
func Words(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ' ' })
}
