package ctl

import (
	"bytes"
	"errors"
	"testing"

	v3 "margay/api/v3"
)

// TestOutcome has calicoctl's sentences. Steps are + for a resource that was handled and - for one that was not.
func TestOutcome(t *testing.T) {
	for _, tc := range []struct {
		verb               verb
		kind, steps        string
		wantOut, wantError string
	}{
		{verbApply, "HostEndpoint", "++", "Successfully applied 2 'HostEndpoint' resource(s)\n", ""},
		{verbCreate, "Tier", "+", "Successfully created 1 'Tier' resource(s)\n", ""},
		{verbReplace, "", "+++", "Successfully replaced 3 resource(s)\n", ""},
		{verbValidate, "", "", "No resources specified\n", ""},
		{verbApply, "Tier", "-", "", "failed to apply 'Tier' resource: [e0]"},
		{verbApply, "Tier", "--", "", "failed to apply any 'Tier' resources: [e0\ne1]"},
		{verbApply, "", "--", "", "failed to apply any resources: [e0\ne1]"},
		{verbReplace, "Tier", "-", "", "failed to replace 'Tier' resource: e0"},
		{verbReplace, "Tier", "--", "", "failed to replace any 'Tier' resources: [e0\ne1]"},
		{verbApply, "Tier", "++-", "Partial success: applied the first 2 out of 3 'Tier' resources:\n  Tier(a)\n  Tier(b)\n", "hit error: [e2]"},
		{verbApply, "Tier", "-++", "Partial success: applied 2 out of 3 'Tier' resources:\n  Tier(b)\n  Tier(c)\n", "hit error: [e0]"},
		{verbCreate, "", "+--", "Partial success: created the first 1 out of 3 resources:\n  Tier(a)\n", "hit error: [e1\ne2]"},
		{verbReplace, "", "+-", "Partial success: replaced the first 1 out of 2 resources:\n  Tier(a)\n", "hit error: e1"},
	} {
		t.Run(tc.verb.name+" "+tc.kind+tc.steps, func(t *testing.T) {
			o := outcome{kind: tc.kind, total: len(tc.steps)}
			for i, step := range tc.steps {
				if step == '+' {
					o.ok(v3.Key{Kind: "Tier", Name: string(rune('a' + i))})
				} else {
					o.fail(errors.New("e" + string(rune('0'+i))))
				}
			}
			var out bytes.Buffer
			err := o.report(&out, tc.verb)
			if out.String() != tc.wantOut {
				t.Errorf("printed %q, want %q", out.String(), tc.wantOut)
			}
			if got := errorText(err); got != tc.wantError {
				t.Errorf("error %q, want %q", got, tc.wantError)
			}
		})
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
