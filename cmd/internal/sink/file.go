package sink

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"sync"
)

// FileOptions configures a file with one record a line.
type FileOptions struct {
	Path    string
	MaxSize int64 // bytes after which the file becomes PATH.1, PATH.1 becomes PATH.2, …; 0 = never
	Keep    int   // how many of them to keep; 0 = the full file is deleted
}

type file struct {
	o    FileOptions
	b    bytes.Buffer
	mu   sync.Mutex // Reopen comes from another goroutine
	f    *os.File
	size int64
}

// NewFile returns the sink "file".
func NewFile(o FileOptions) (Sink, error) {
	if o.Path == "" {
		return nil, errors.New("sink file: give it a path")
	}
	if o.MaxSize < 0 || o.Keep < 0 {
		return nil, errors.New("sink file: max size and keep cannot be negative")
	}
	return &file{o: o}, nil
}

// open opens the file. A line that a crash cut short is ended, so that it does
// not spoil the next one; its record comes again.
func (s *file) open() error {
	f, err := os.OpenFile(s.o.Path, os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o640)
	if err != nil {
		return err
	}
	st, err := f.Stat()
	if err == nil && st.Mode().IsRegular() && st.Size() > 0 {
		last := []byte{0}
		if _, err = f.ReadAt(last, st.Size()-1); err == nil && last[0] != '\n' {
			_, err = f.Write([]byte{'\n'})
		}
	}
	if err != nil {
		f.Close()
		return err
	}
	s.f, s.size = f, st.Size()
	return nil
}

// Send writes the batch and waits for the disk: a record that was accepted
// survives a power failure.
func (s *file) Send(_ context.Context, batch []Message, out []Outcome) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.b.Reset()
	lines(&s.b, batch)
	if s.f != nil && s.o.MaxSize > 0 && s.size > 0 && s.size+int64(s.b.Len()) > s.o.MaxSize {
		if err := s.rotate(); err != nil {
			return fmt.Errorf("rotate %s: %w", s.o.Path, err)
		}
	}
	if s.f == nil {
		if err := s.open(); err != nil {
			return fmt.Errorf("open records file: %w", err)
		}
	}
	_, err := s.f.Write(s.b.Bytes())
	if err == nil {
		err = s.f.Sync()
	}
	if err != nil { // e.g. a full disk; the next open ends a torn line
		s.f.Close()
		s.f = nil
		return fmt.Errorf("write records: %w", err)
	}
	s.size += int64(s.b.Len())
	fill(out, Accepted)
	return nil
}

// rotate renames the file and those before it.
func (s *file) rotate() error {
	s.f.Close()
	s.f = nil
	name := func(i int) string { return s.o.Path + "." + strconv.Itoa(i) }
	for i := s.o.Keep - 1; i > 0; i-- {
		if err := os.Rename(name(i), name(i+1)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	var err error
	if s.o.Keep == 0 {
		err = os.Remove(s.o.Path)
	} else {
		err = os.Rename(s.o.Path, name(1))
	}
	if errors.Is(err, fs.ErrNotExist) { // moved away by somebody else
		return nil
	}
	return err
}

// Reopen lets go of the file, so that the next batch goes to a new one under the same name.
func (s *file) Reopen() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.f == nil {
		return nil
	}
	err := s.f.Close()
	s.f = nil
	return err
}

// Close closes the file.
func (s *file) Close() error { return s.Reopen() }

// lines appends one line per message.
func lines(b *bytes.Buffer, batch []Message) {
	for i := range batch {
		b.Write(batch[i].Data)
		b.WriteByte('\n')
	}
}
