package main

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/spf13/cobra"

	"jindan/cmd/internal/agent"
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
				if err := agent.Ack(c.Context(), cfg.HTTP.Listen, id); err != nil {
					return err
				}
			}
			return nil
		},
	}
	configFlag(c, &file)
	return c
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
			resp, err := agent.Ask(c.Context(), cfg.HTTP.Listen, http.MethodGet, "/healthz")
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				return errors.New(agent.Said(resp))
			}
			_, err = fmt.Fprintln(c.OutOrStdout(), agent.Said(resp))
			return err
		},
	}
	configFlag(c, &file)
	return c
}
