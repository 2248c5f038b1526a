package agent

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Ack acknowledges a finding.
func Ack(ctx context.Context, where, id string) error {
	resp, err := Ask(ctx, where, http.MethodPost, "/ack/"+url.PathEscape(id))
	if err != nil {
		return fmt.Errorf("acknowledge %q: %w", id, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusNoContent {
		return fmt.Errorf("acknowledge %q: %s", id, Said(resp))
	}
	return nil
}

// Said is what the agent answered.
func Said(resp *http.Response) string {
	b, _ := io.ReadAll(io.LimitReader(resp.Body, 200))
	return strings.TrimSpace(string(b))
}

// Client asks the agent that listens at where.
type Client struct {
	http.Client
	host string
}

// NewClient makes one for the agent that listens at where.
func NewClient(where string) (*Client, error) {
	if where == "" {
		return nil, fmt.Errorf("the agent listens nowhere: set http.listen in its configuration")
	}
	client := &Client{http.Client{Timeout: 10 * time.Second}, where}
	if strings.HasPrefix(where, "/") {
		client.host = "localhost"
		client.Transport = &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", where)
		}}
	}
	return client, nil
}

// Ask asks the agent that listens at where once.
func Ask(ctx context.Context, where, method, path string) (*http.Response, error) {
	client, err := NewClient(where)
	if err != nil {
		return nil, err
	}
	return client.Ask(ctx, method, path)
}

// Ask asks the agent.
func (client *Client) Ask(ctx context.Context, method, path string) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, method, "http://"+client.host+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(r)
	if err != nil {
		return nil, fmt.Errorf("does the agent run? %w", err)
	}
	return resp, nil
}
