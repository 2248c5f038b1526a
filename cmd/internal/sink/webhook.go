package sink

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
)

// WebhookOptions configures delivery by HTTP POST.
type WebhookOptions struct {
	Address string // URL; of elastic it names the index or data stream: https://host:9200/INDEX/_bulk
	Format  string // json (an array; the default), ndjson, loki or elastic
	HTTP
}

type webhook struct {
	*client
	format string
}

// webhookPaths are the formats with the path that is taken when the address has none.
var webhookPaths = map[string]string{"": "/", "json": "/", "ndjson": "/", "loki": "/loki/api/v1/push", "elastic": "/jindan/_bulk"}

// NewWebhook returns the sink "webhook".
func NewWebhook(o WebhookOptions) (Sink, error) {
	path, ok := webhookPaths[o.Format]
	if !ok {
		return nil, fmt.Errorf("sink webhook: format %q: use json, ndjson, loki or elastic", o.Format)
	}
	c, err := newClient(o.Address, path, o.HTTP)
	if err != nil {
		return nil, fmt.Errorf("sink webhook: %w", err)
	}
	return &webhook{c, o.Format}, nil
}

// Send posts the batch: as a whole, or for Elasticsearch in parts in which an id occurs once.
func (w *webhook) Send(ctx context.Context, batch []Message, out []Outcome) error {
	if w.format == "elastic" {
		return EachDistinct(batch, out, func(m []Message, o []Outcome) error { return w.bulk(ctx, m, o) })
	}
	var b bytes.Buffer
	contentType := "application/json"
	switch w.format {
	case "ndjson":
		contentType = "application/x-ndjson"
		for i := range batch {
			b.Write(batch[i].Data)
			b.WriteByte('\n')
		}
	case "loki":
		body, err := loki(batch)
		if err != nil {
			return &RefusedError{err}
		}
		b.Write(body)
	default:
		for i := range batch {
			b.WriteByte("[,"[min(i, 1)])
			b.Write(batch[i].Data)
		}
		b.WriteByte(']')
	}
	// The key lets a receiver drop a batch that it got twice (draft-ietf-httpapi-idempotency-key-header).
	key := map[string]string{"Idempotency-Key": strconv.Quote(batch[0].Key() + "+" + strconv.Itoa(len(batch)))}
	if _, err := w.post(ctx, contentType, b.Bytes(), key); err != nil {
		return err
	}
	fill(out, Accepted)
	return nil
}

// loki is a push request of Loki: one stream per set of labels. Labels are few by
// nature (kind and level); the rest is in the line.
func loki(batch []Message) ([]byte, error) {
	type stream struct {
		Stream map[string]string `json:"stream"`
		Values [][2]string       `json:"values"`
	}
	var streams []*stream
	byLabels := map[[2]string]*stream{}
	for i := range batch {
		m := &batch[i]
		k := [2]string{string(m.Kind), m.Severity}
		s := byLabels[k]
		if s == nil {
			s = &stream{Stream: map[string]string{"job": "jindan", "kind": k[0], "level": k[1]}}
			byLabels[k] = s
			streams = append(streams, s)
		}
		s.Values = append(s.Values, [2]string{strconv.FormatInt(int64(m.Time), 10), string(m.Data)})
	}
	return marshal(map[string]any{"streams": streams})
}

// bulk sends one bulk request to Elasticsearch or OpenSearch. A document's id is
// the record's key and the action "create", which data streams demand: what is
// sent twice is answered by 409, and the receiver has it.
func (w *webhook) bulk(ctx context.Context, batch []Message, out []Outcome) error {
	var b bytes.Buffer
	for i := range batch {
		action, err := marshal(map[string]any{"create": map[string]string{"_id": batch[i].Key()}})
		if err != nil {
			return &RefusedError{err}
		}
		b.Write(action)
		b.WriteByte('\n')
		b.Write(batch[i].Data)
		b.WriteByte('\n')
	}
	answer, err := w.post(ctx, "application/x-ndjson", b.Bytes(), nil)
	if err != nil {
		return err
	}
	var result struct {
		Items []map[string]struct {
			Status int             `json:"status"`
			Error  json.RawMessage `json:"error"`
		} `json:"items"`
	}
	if err := json.Unmarshal(answer, &result); err != nil || len(result.Items) != len(batch) {
		return fmt.Errorf("the answer to a bulk request of %d documents is none: %s", len(batch), clip(string(answer)))
	}
	var errs error
	for i, item := range result.Items {
		for _, v := range item { // one action each
			switch {
			case v.Status/100 == 2, v.Status == http.StatusConflict:
				out[i] = Accepted
			case v.Status/100 == 4 && v.Status != http.StatusRequestTimeout && v.Status != http.StatusTooEarly && v.Status != http.StatusTooManyRequests:
				out[i] = Rejected
			}
			if out[i] != Accepted && errs == nil { // the first stands for the rest
				errs = errors.New("document refused with status " + strconv.Itoa(v.Status) + ": " + clip(string(v.Error)))
			}
		}
	}
	return errs
}
