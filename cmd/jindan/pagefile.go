package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"jindan/analyze"
	"jindan/analyze/view"
	"jindan/capture"
	"jindan/capture/decode"
	"jindan/capture/pcapfile"
	"jindan/cmd/internal/diagnose"
	"jindan/cmd/internal/report"
)

// pageFile is the page that --report asks for: a temporary file beside its place, which gets its name when it is whole.
type pageFile struct {
	name string
	temp *os.File // nil: standard output
	view *view.Collector
}

// openPage makes sure that the page can be written before the analysis begins. It returns nil if none is wanted.
func openPage(name string) (*pageFile, error) {
	if name == "" {
		return nil, nil
	}
	p := &pageFile{name: name, view: view.New()}
	if name == "-" {
		return p, nil
	}
	if st, err := os.Stat(name); err == nil && st.IsDir() {
		return nil, fmt.Errorf("--report %s: is a directory; give the name of a file", name)
	}
	// The umask decides who may read the page, as with any other file; os.CreateTemp would keep it from all but its owner.
	temp := filepath.Join(filepath.Dir(name), fmt.Sprintf(".%s.%d.tmp", filepath.Base(name), os.Getpid()))
	t, err := os.OpenFile(temp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o666)
	if err != nil {
		return nil, fmt.Errorf("--report %s: cannot be written there: %w", name, err)
	}
	p.temp = t
	return p, nil
}

// watch is what collects the data of the page; nil if none is wanted.
func (p *pageFile) watch() analyze.Watcher {
	if p == nil {
		return nil
	}
	return p.view
}

// discard removes what was not finished.
func (p *pageFile) discard() {
	if p != nil && p.temp != nil {
		_ = p.temp.Close()
		_ = os.Remove(p.temp.Name())
	}
}

// opener opens the input with decoders of the caller's.
type opener func(decoder func() pcapfile.Decoder) (*diagnose.Input, error)

// openerOf opens files.
func openerOf(args []string) opener {
	return func(decoder func() pcapfile.Decoder) (*diagnose.Input, error) {
		return diagnose.OpenWith(args, decoder)
	}
}

// write writes the page; args are those that the input was opened with, and reopen opens it once more.
func (p *pageFile) write(ctx context.Context, args []string, reopen opener, in report.Input, d *analyze.Diagnosis, o report.Options, redact bool) error {
	if p == nil {
		return nil
	}
	v := p.view.Record(d)
	if err := trace(ctx, args, reopen, v); err != nil {
		return err
	}
	in.Digest = digest(args)
	if redact {
		in, d, v = report.Redact(in, d, v)
	}
	if p.temp == nil {
		w := bufio.NewWriter(os.Stdout)
		return errors.Join(report.HTML(w, in, d, v, o), w.Flush())
	}
	w := bufio.NewWriter(p.temp)
	if err := errors.Join(report.HTML(w, in, d, v, o), w.Flush(), p.temp.Sync(), p.temp.Close()); err != nil {
		return err
	}
	temp := p.temp.Name()
	p.temp = nil
	if err := os.Rename(temp, p.name); err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	return nil
}

// trace reads the input again for the packets of the connections that the page shows. Standard input cannot be read twice, and what
// cannot be opened any more is left out.
func trace(ctx context.Context, args []string, reopen opener, v *view.View) error {
	t := view.NewTracer(v)
	for _, a := range args {
		if a == "-" {
			return nil
		}
	}
	if t.Done(0) {
		return nil
	}
	in, err := reopen(func() pcapfile.Decoder { return traced{decode.New(), t} })
	if err != nil {
		return nil
	}
	defer in.Close()
	enough := errors.New("enough")
	err = in.Read(ctx, func(b *capture.Batch) error {
		for i := range b.Obs {
			if o := &b.Obs[i]; o.Kind == capture.KindPacket {
				t.Packet(o.At, &o.Packet)
			}
		}
		if n := len(b.Obs); n > 0 && t.Done(b.Obs[n-1].At) {
			return enough
		}
		return nil
	})
	if errors.Is(err, context.Canceled) {
		return err
	}
	return nil // what is wrong with the input was said after the first reading
}

// traced decodes what a tracer may look for. The rest of the packets are not missing.
type traced struct {
	*decode.Decoder
	tracer *view.Tracer
}

// Decode implements pcapfile.Decoder.
func (w traced) Decode(at capture.Instant, linkType uint16, data []byte, wireLen int, p *capture.Packet) capture.LossReason {
	if !w.tracer.Wants(at) {
		return capture.LossNotIP
	}
	return w.Decoder.Decode(at, linkType, data, wireLen, p)
}

// maxDigest is the size in bytes up to which an input is hashed: a tenth of a second.
const maxDigest = 64 << 20

// digest identifies an input of one file; empty for others, and for those that are too large.
func digest(args []string) string {
	if len(args) != 1 || args[0] == "-" {
		return ""
	}
	name, _ := pcapfile.Interface(args[0])
	f, err := os.Open(name)
	if err != nil {
		return ""
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() || st.Size() > maxDigest {
		return ""
	}
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return ""
	}
	return hex.EncodeToString(h.Sum(nil))
}
