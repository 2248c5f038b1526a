package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"

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
	if where == "" {
		return fmt.Errorf("the agent listens nowhere: set http.listen in its configuration")
	}
	host := where
	client := http.Client{}
	if strings.HasPrefix(where, "/") {
		host = "agent"
		client.Transport = &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", where)
		}}
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+host+"/ack/"+id, nil)
	if err != nil {
		return fmt.Errorf("acknowledge %q: %w", id, err)
	}
	resp, err := client.Do(r)
	if err != nil {
		return fmt.Errorf("acknowledge %q: does the agent run? %w", id, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusNoContent {
		said, _ := io.ReadAll(io.LimitReader(resp.Body, 200))
		return fmt.Errorf("acknowledge %q: %s", id, strings.TrimSpace(string(said)))
	}
	return nil
}
