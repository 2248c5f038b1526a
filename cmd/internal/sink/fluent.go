package sink

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"net"
	"slices"
	"strconv"
)

// FluentOptions configures delivery to Fluentd or Fluent Bit.
type FluentOptions struct {
	Network string // tcp (default) or unix
	Address string // host or host:port, default port 24224; of a socket its path
	Tag     string // with .KIND appended; default jindan
	TLS     TLS
}

// fluent speaks the forward protocol v1 in PackedForward mode with acknowledgement
// (fluentd wiki, "Forward Protocol Specification v1"). Shared-key authentication
// is not spoken: use TLS with a client certificate.
type fluent struct {
	stream
	tag string
	b   []byte
}

// NewFluent returns the sink "fluent".
func NewFluent(o FluentOptions) (Sink, error) {
	if o.Address == "" {
		return nil, errors.New("sink fluent: give it an address, host:port")
	}
	if o.Tag == "" {
		o.Tag = "jindan"
	}
	f := &fluent{tag: o.Tag}
	f.network, f.address = o.Network, o.Address
	switch o.Network {
	case "", "tcp":
		f.network = "tcp"
		if _, _, err := net.SplitHostPort(o.Address); err != nil {
			f.address = net.JoinHostPort(o.Address, "24224")
		}
	case "unix":
	default:
		return nil, fmt.Errorf("sink fluent: network %q: use tcp or unix", o.Network)
	}
	if o.TLS.Enabled() {
		var err error
		if f.tls, err = o.TLS.Config(); err != nil {
			return nil, fmt.Errorf("sink fluent: %w", err)
		}
	}
	return f, nil
}

// Send forwards the records, one chunk per run of records of the same kind, and
// waits for the acknowledgement of each.
func (f *fluent) Send(ctx context.Context, batch []Message, out []Outcome) error {
	if err := f.open(ctx); err != nil {
		f.close()
		return fmt.Errorf("connect to fluent: %w", err)
	}
	for len(batch) > 0 {
		n := 1
		for n < len(batch) && batch[n].Kind == batch[0].Kind {
			n++
		}
		if err := f.chunk(batch[:n], out[:n]); err != nil {
			f.close()
			return fmt.Errorf("forward to fluent %s: %w", f.address, err)
		}
		batch, out = batch[n:], out[n:]
	}
	return nil
}

// chunk sends [tag, entries, {"chunk": id, "size": n}] and reads {"ack": id}.
func (f *fluent) chunk(batch []Message, out []Outcome) error {
	var entries []byte
	sent := 0
	for i := range batch {
		var v any
		if err := unmarshal(batch[i].Data, &v); err != nil {
			out[i] = Rejected
			continue
		}
		entries = append(entries, 0x92)
		entries = packTime(entries, int64(batch[i].Time))
		entries = pack(entries, v)
		sent++
	}
	if sent == 0 {
		return nil
	}
	id := base64.StdEncoding.EncodeToString([]byte(batch[0].Key()))
	f.b = append(f.b[:0], 0x93)
	f.b = packString(f.b, f.tag+"."+string(batch[0].Kind))
	f.b = append(f.b, 0xc6) // bin 32
	f.b = binary.BigEndian.AppendUint32(f.b, uint32(len(entries)))
	f.b = append(f.b, entries...)
	f.b = append(f.b, 0x82)
	f.b = packString(packString(f.b, "chunk"), id)
	f.b = pack(packString(f.b, "size"), json.Number(strconv.Itoa(sent)))
	if _, err := f.conn.Write(f.b); err != nil {
		return err
	}
	want := packString(packString([]byte{0x81}, "ack"), id)
	got := make([]byte, 0, len(want))
	for len(got) < len(want) {
		n, err := f.conn.Read(got[len(got):len(want)])
		if err != nil {
			return fmt.Errorf("no acknowledgement: %w", err)
		}
		got = got[:len(got)+n]
	}
	if !slices.Equal(got, want) {
		return fmt.Errorf("acknowledgement of another chunk: %q", clip(string(got)))
	}
	for i := range out {
		if out[i] == Retry {
			out[i] = Accepted
		}
	}
	return nil
}

// Close closes the connection.
func (f *fluent) Close() error {
	f.close()
	return nil
}

// packTime appends an EventTime: extension type 0 of 8 bytes, seconds and nanoseconds.
func packTime(b []byte, ns int64) []byte {
	b = append(b, 0xd7, 0)
	b = binary.BigEndian.AppendUint32(b, uint32(ns/1e9))
	return binary.BigEndian.AppendUint32(b, uint32(ns%1e9))
}

// packString appends a MessagePack string.
func packString(b []byte, s string) []byte {
	switch n := len(s); {
	case n < 32:
		b = append(b, 0xa0|byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, 0xda), uint16(n))
	default:
		b = binary.BigEndian.AppendUint32(append(b, 0xdb), uint32(n))
	}
	return append(b, s...)
}

// packLen appends the head of an array or a map.
func packLen(b []byte, n int, fix, long byte) []byte {
	if n < 16 {
		return append(b, fix|byte(n))
	}
	return binary.BigEndian.AppendUint32(append(b, long), uint32(n))
}

// pack appends decoded JSON as MessagePack.
func pack(b []byte, v any) []byte {
	switch v := v.(type) {
	case bool:
		if v {
			return append(b, 0xc3)
		}
		return append(b, 0xc2)
	case string:
		return packString(b, v)
	case json.Number:
		if n, err := strconv.ParseInt(v.String(), 10, 64); err == nil {
			if n >= 0 && n < 128 {
				return append(b, byte(n))
			}
			return binary.BigEndian.AppendUint64(append(b, 0xd3), uint64(n))
		}
		if n, err := strconv.ParseUint(v.String(), 10, 64); err == nil {
			return binary.BigEndian.AppendUint64(append(b, 0xcf), n)
		}
		x, _ := v.Float64() // out of range: ±Inf, as the number says
		return binary.BigEndian.AppendUint64(append(b, 0xcb), math.Float64bits(x))
	case []any:
		b = packLen(b, len(v), 0x90, 0xdd)
		for _, e := range v {
			b = pack(b, e)
		}
		return b
	case map[string]any:
		b = packLen(b, len(v), 0x80, 0xdf)
		for _, k := range slices.Sorted(maps.Keys(v)) {
			b = pack(packString(b, k), v[k])
		}
		return b
	}
	return append(b, 0xc0)
}
