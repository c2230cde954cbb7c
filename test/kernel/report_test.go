package main

import (
	"bytes"
	"strings"
	"testing"

	"margay/test/kernel/plan"
)

// A run counts only if the machine said that it is done, and nothing failed.
func TestReport(t *testing.T) {
	for _, c := range []struct{ name, said, want string }{
		{"all passed", "PASS\r\n" + plan.Passed + "./a in 1s\r\n" + plan.Done + "\r\n[   9.1] reboot: Power down\r\n", ""},
		{"one failed", plan.Failed + "./a (exit status 1)\r\n" + plan.Passed + "./b in 1s\r\n" + plan.Done + "\r\n", "failed: ./a (exit status 1)"},
		{"the kernel did not come up", "Kernel panic\r\n", "ended before"},
		{"cut off", plan.Passed + "./a in 1s\r\n" + plan.Done, "ended before"},
		{"nothing", "", "ended before"},
	} {
		var out bytes.Buffer
		r := newReport(&out)
		for _, b := range []byte(c.said) {
			if _, err := r.Write([]byte{b}); err != nil {
				t.Fatal(err)
			}
		}
		err := r.result()
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
		whole := c.said[:strings.LastIndex(c.said, "\n")+1]
		if want := strings.ReplaceAll(whole, "\r", ""); out.String() != want {
			t.Errorf("%s: passed on %q, want %q", c.name, out.String(), want)
		}
	}
}
