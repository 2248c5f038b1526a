package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

func newAck(*app) *cobra.Command {
	var file string
	c := &cobra.Command{
		Use:   "ack ID…",
		Short: "Tell the agent that an open finding is known: it is not repeated any more",
		Long: `Open findings of severity warn and above are sent to the sinks again at an interval (repeat_open) until they resolve or are
acknowledged. IDs are those of the findings.`,
		Args: someArgs("the ids of findings"),
		RunE: func(c *cobra.Command, args []string) error {
			cfg, err := loadConfig(file, false)
			if err != nil {
				return err
			}
			for _, id := range args {
				if err := ack(c.Context(), cfg.HTTP.Listen, id); err != nil {
					return err
				}
			}
			return nil
		},
	}
	configFlag(c, &file)
	return c
}

func ack(ctx context.Context, where, id string) error {
	resp, err := ask(ctx, where, http.MethodPost, "/ack/"+url.PathEscape(id))
	if err != nil {
		return fmt.Errorf("acknowledge %q: %w", id, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusNoContent {
		return fmt.Errorf("acknowledge %q: %s", id, said(resp))
	}
	return nil
}

// said is what the agent answered.
func said(resp *http.Response) string {
	b, _ := io.ReadAll(io.LimitReader(resp.Body, 200))
	return strings.TrimSpace(string(b))
}

// agentClient asks the agent that listens at where.
type agentClient struct {
	http.Client
	host string
}

func newAgentClient(where string) (*agentClient, error) {
	if where == "" {
		return nil, fmt.Errorf("the agent listens nowhere: set http.listen in its configuration")
	}
	client := &agentClient{http.Client{Timeout: 10 * time.Second}, where}
	if strings.HasPrefix(where, "/") {
		client.host = "localhost"
		client.Transport = &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", where)
		}}
	}
	return client, nil
}

// ask asks the agent that listens at where once.
func ask(ctx context.Context, where, method, path string) (*http.Response, error) {
	client, err := newAgentClient(where)
	if err != nil {
		return nil, err
	}
	return client.ask(ctx, method, path)
}

func (client *agentClient) ask(ctx context.Context, method, path string) (*http.Response, error) {
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

func newHealth(*app) *cobra.Command {
	var file string
	c := &cobra.Command{
		Use:   "health",
		Short: "Ask the agent whether its analysis keeps up",
		Long:  `Exit status: 0 it does; 2 it does not, or there is no agent. For a liveness probe that needs no open port.`,
		Args:  noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := loadConfig(file, false)
			if err != nil {
				return err
			}
			resp, err := ask(c.Context(), cfg.HTTP.Listen, http.MethodGet, "/healthz")
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				return errors.New(said(resp))
			}
			_, err = fmt.Fprintln(c.OutOrStdout(), said(resp))
			return err
		},
	}
	configFlag(c, &file)
	return c
}
