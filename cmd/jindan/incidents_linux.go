package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/spf13/cobra"

	"jindan/analyze"
	"jindan/cmd/internal/agent"
	"jindan/cmd/internal/cli"
	"jindan/cmd/internal/report"
)

func newIncidents(a *app) *cobra.Command {
	var file, output string
	c := &cobra.Command{
		Use:   "incidents",
		Short: "List the incidents of the agent: those that are open, then those that are over",
		Long: `An incident is a fault with all that follows from it, from its first affected event to its end. Asks the agent that runs here; the
findings of an incident carry its id.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := cli.OneOf("--output", output, "text", "ndjson"); err != nil {
				return err
			}
			cfg, err := loadConfig(file, false)
			if err != nil {
				return err
			}
			return a.incidents(c.Context(), cfg.HTTP.Listen, output)
		},
	}
	configFlag(c, &file)
	c.Flags().StringVarP(&output, "output", "o", "text", "`format`: text or ndjson")
	fixed(c, "output", "text", "ndjson")
	return c
}

func (a *app) incidents(ctx context.Context, where, output string) error {
	resp, err := agent.Ask(ctx, where, http.MethodGet, "/incidents")
	if err != nil {
		return fmt.Errorf("list incidents: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("list incidents: %s", agent.Said(resp))
	}
	if output == "ndjson" {
		_, err := io.Copy(os.Stdout, resp.Body)
		return err
	}
	lang := report.Lang(a.Lang)
	out := bufio.NewWriter(os.Stdout)
	n := 0
	for d := json.NewDecoder(resp.Body); ; n++ {
		var x analyze.Incident
		if err := d.Decode(&x); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return fmt.Errorf("list incidents: %w", err)
		}
		fmt.Fprintln(out, lang.IncidentRow(&x, time.Local))
	}
	if n == 0 {
		fmt.Fprintln(out, lang.Text(analyze.Text{En: "No incident since the agent began.", Ko: "에이전트 시작 이후 장애가 없습니다."}))
	}
	return out.Flush()
}
