package ctl

import (
	"bufio"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
)

// minKernel is the oldest kernel that has everything the rules are made of: it was the first to show the incoming interface in
// postrouting. 5.10 is the oldest that tests ran on.
var minKernel = [2]int{5, 7}

// A feature of the kernel: any of the configuration options or modules will do.
type feature struct {
	name     string // of the module, as it is shown
	options  []string
	optional string // what is missing without it; "" if it is needed
}

// features are what the agent's rules need. calicoctl's list is for iptables.
func features() []feature {
	return []feature{
		{"nf_tables", []string{"CONFIG_NF_TABLES"}, ""},
		{"nf_tables_inet", []string{"CONFIG_NF_TABLES_INET"}, ""},
		{"nf_conntrack", []string{"CONFIG_NF_CONNTRACK"}, ""},
		{"nft_ct", []string{"CONFIG_NFT_CT"}, ""},
		{"nft_log", []string{"CONFIG_NFT_LOG"}, "rules with action Log log nothing"},
		{"nfnetlink_log", []string{"CONFIG_NETFILTER_NETLINK_LOG"}, "rules with action Log log nothing"},
		{"nft_reject", []string{"CONFIG_NFT_REJECT", "CONFIG_NFT_REJECT_INET"}, "the deny action Reject"},
	}
}

func (c *cli) checkSystemCommand(host Host) *cobra.Command {
	var kernelConfig string
	cmd := &cobra.Command{
		Use:   "checksystem",
		Short: "Check whether the kernel of this host can enforce policy",
		Long: "Check the version and the features of the kernel, and then, in a network namespace of its own, whether it takes\n" +
			"rules of every form. Run it as root.",
		Example: c.example("$ node checksystem"),
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := needRoot(); err != nil {
				return err
			}
			return c.checkSystem(cmd.Context(), host, kernelConfig)
		},
	}
	cmd.Flags().StringVarP(&kernelConfig, "kernel-config", "f", "", "file with the kernel's configuration")
	return cmd
}

func (c *cli) checkSystem(ctx context.Context, host Host, kernelConfig string) error {
	out := c.env.Stdout
	fmt.Fprintln(out, "Checking kernel version...")
	release, good, err := host.kernel()
	if err != nil {
		return err
	}
	c.result(release, good)
	if !good {
		fmt.Fprintf(out, "Minimum kernel version is %d.%d.0. Detected kernel version: %s\n", minKernel[0], minKernel[1], release)
	}
	fmt.Fprintln(out, "Checking kernel modules...")
	k := host.modules(release, kernelConfig)
	for _, f := range features() {
		switch found := k.has(f); {
		case found:
			c.result(f.name, true)
		case f.optional != "":
			fmt.Fprintf(out, "WARNING: Unable to detect optional module/feature %s; without it: %s\n", f.name, f.optional)
			fmt.Fprintf(out, resultLine, f.name, "SKIP")
		default:
			fmt.Fprintf(out, "WARNING: Unable to detect the %s module as Loaded/Builtin module\n", f.name)
			c.result(f.name, false)
			good = false
		}
	}
	if host.Try != nil {
		fmt.Fprintln(out, "Programming rules in a network namespace...")
		err := host.Try(ctx)
		c.result("rules", err == nil)
		if err != nil {
			return fmt.Errorf("system doesn't meet one or more minimum systems requirements to run Calico: %w", err)
		}
		good = good || k.blind // what was tried counts more than what could not be looked up
	}
	if !good {
		return errors.New("system doesn't meet one or more minimum systems requirements to run Calico")
	}
	fmt.Fprintln(out, "System meets minimum system requirements to run Calico!")
	return nil
}

// resultLine is the form of calicoctl's results.
const resultLine = "\t\t%-20s\t\t\t\t\t%s\n"

func (c *cli) result(what string, good bool) {
	result := "OK"
	if !good {
		result = "FAIL"
	}
	fmt.Fprintf(c.env.Stdout, resultLine, what, result)
}

var kernelVersion = regexp.MustCompile(`^(\d+)\.(\d+)`)

// kernel returns the kernel's release, and whether it is new enough.
func (h Host) kernel() (release string, good bool, err error) {
	text, err := os.ReadFile(filepath.Join(h.Root, "proc/sys/kernel/osrelease"))
	if err != nil {
		return "", false, fmt.Errorf("find out the kernel's version: %w", err)
	}
	release = strings.TrimSpace(string(text))
	m := kernelVersion.FindStringSubmatch(release)
	if m == nil {
		return release, false, nil
	}
	major, _ := strconv.Atoi(m[1]) // digits
	minor, _ := strconv.Atoi(m[2])
	return release, major > minKernel[0] || major == minKernel[0] && minor >= minKernel[1], nil
}

// modules is what can be found out about the kernel's features.
type modules struct {
	root, release string
	config        map[string]bool // options that are set
	// blind says that there is neither a configuration nor a list of modules: nothing is known.
	blind bool
}

func (h Host) modules(release, config string) *modules {
	k := &modules{root: h.Root, release: release, config: map[string]bool{}}
	candidates := []string{config}
	if config == "" {
		candidates = nil
		for _, name := range []string{"/proc/config.gz", "/boot/config-" + release, "/usr/src/linux/.config",
			"/usr/src/linux-headers-" + release + "/.config", "/lib/modules/" + release + "/build/.config"} {
			candidates = append(candidates, filepath.Join(h.Root, name))
		}
	}
	for _, name := range candidates {
		if k.readConfig(name) == nil {
			return k
		}
	}
	_, errDep := os.Stat(filepath.Join(h.Root, "lib/modules", release, "modules.dep"))
	k.blind = errDep != nil
	return k
}

// readConfig reads a kernel configuration: lines CONFIG_X=y or m.
func (k *modules) readConfig(name string) error {
	file, err := os.Open(name)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	var r io.Reader = file
	if strings.HasSuffix(name, ".gz") {
		if r, err = gzip.NewReader(file); err != nil {
			return err
		}
	}
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		if option, value, ok := strings.Cut(lines.Text(), "="); ok && (value == "y" || value == "m") {
			k.config[option] = true
		}
	}
	return lines.Err()
}

func (k *modules) has(f feature) bool {
	for _, option := range f.options {
		if k.config[option] {
			return true
		}
	}
	if _, err := os.Stat(filepath.Join(k.root, "sys/module", f.name)); err == nil {
		return true
	}
	file := regexp.MustCompile(`(?m)/` + f.name + `\.ko(\.(gz|xz|zst|bz2))?\b`)
	for _, list := range []string{"modules.dep", "modules.builtin"} {
		text, err := os.ReadFile(filepath.Join(k.root, "lib/modules", k.release, list))
		if err == nil && file.Match(text) {
			return true
		}
	}
	return false
}
