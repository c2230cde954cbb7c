package storetest

import (
	"fmt"
	"strings"

	v3 "margay/api/v3"
	"margay/store"
)

func create(r v3.Resource) store.Write { return store.Write{Op: store.Create, Resource: r} }
func update(r v3.Resource) store.Write { return store.Write{Op: store.Update, Resource: r} }
func remove(r v3.Resource) store.Write { return store.Write{Op: store.Delete, Resource: r} }

// at returns a copy of the set with other nets and a resourceVersion.
func at(set *v3.GlobalNetworkSet, revision store.Revision, nets ...string) *v3.GlobalNetworkSet {
	c := *set
	c.Spec.Nets = nets
	c.SetResourceVersion(string(revision))
	return &c
}

// wantResults compares what became of writes: "ok", or the error's text.
func (e *env) wantResults(results []store.Result, want ...string) {
	e.Helper()
	got := make([]string, len(results))
	for i, r := range results {
		switch {
		case r.Err != nil:
			got[i] = r.Err.Error()
		case r.Resource == nil || r.Revision == "":
			e.Fatalf("result %d has neither error nor resource and revision: %+v", i, r)
		default:
			got[i] = "ok"
		}
	}
	e.equal(got, want)
}

func testWriteAll(e *env) {
	a, b, c := globalSet("a"), globalSet("b"), globalSet("c")
	results := e.s.WriteAll(e.ctx, store.Commit, []store.Write{create(a), create(b), create(a), create(c)})
	e.wantResults(results, "ok", "ok", "resource already exists: GlobalNetworkSet(a) with error: key exists", "ok")
	e.equal(e.get(v3.KeyOf(b)), results[1].Resource)
	e.same(revisionOf(results[1].Resource), results[1].Revision)
	e.equal(e.s.Reached(results[3].Revision, results[0].Revision), true)

	old := revisionOf(results[1].Resource)
	results = e.s.WriteAll(e.ctx, store.Commit, []store.Write{
		update(at(b, old, "10.0.0.0/8")),
		update(at(c, "1")),
		update(at(globalSet("d"), "1")),
		update(a),
		remove(a),
		remove(globalSet("d")),
		remove(at(b, old)),
		create(hostEndpoint("h", "")),
	})
	e.wantResults(results, "ok", "update conflict: GlobalNetworkSet(c)",
		"resource does not exist: GlobalNetworkSet(d) with error: key not found",
		`GlobalNetworkSet(a): metadata.resourceVersion: field must be set for an Update request`,
		"ok", "resource does not exist: GlobalNetworkSet(d) with error: key not found",
		"update conflict: GlobalNetworkSet(b)",
		"HostEndpoint(h): spec.node: node must be specified (add node: the name that the agent of that host has)")
	e.equal(names(e.list(v3.KindGlobalNetworkSet)), []string{"GlobalNetworkSet(b)", "GlobalNetworkSet(c)"})
	e.equal(results[4].Resource.GetName(), "a")
	e.equal(len(e.s.WriteAll(e.ctx, store.Commit, nil)), 0)
}

// testWriteAllInOrder lets later writes need and repeat earlier ones.
func testWriteAllInOrder(e *env) {
	e.noError(e.s.Initialise(e.ctx))
	writes := []store.Write{
		create(policy("early", "t")), create(tier("t")), create(policy("p", "t")),
		create(globalSet("a")), remove(globalSet("a")), create(globalSet("a")),
		remove(tier("t")), remove(policy("p", "t")), remove(tier("t")),
		create(pool("one", "10.0.0.0/16")), create(pool("two", "10.0.0.0/24")),
		remove(tier("default")),
	}
	e.wantResults(e.s.WriteAll(e.ctx, store.Commit, writes),
		"resource does not exist: Tier(t) with error: key not found", "ok", "ok", "ok", "ok", "ok",
		"operation delete is not supported on Tier(t): Cannot delete a non-empty tier (globalnetworkpolicies/p is in it)", "ok", "ok",
		"ok", `IPPool(two): spec.cidr = "10.0.0.0/24": IPPool(two) CIDR overlaps with IPPool(one) CIDR 10.0.0.0/16`,
		"operation delete is not supported on Tier(default): Cannot delete default tier")
}

// testWriteAllMany goes beyond what one request takes, in number and in size.
func testWriteAllMany(e *env) {
	large := strings.Repeat("x", 100_000)
	var writes []store.Write
	for i := range 350 {
		set := globalSet(fmt.Sprintf("s%03d", i))
		if i < 30 {
			set.SetAnnotations(map[string]string{"large": large})
		}
		writes = append(writes, create(set))
	}
	for i, r := range e.s.WriteAll(e.ctx, store.Commit, writes) {
		if r.Err != nil {
			e.Fatalf("write %d: %v", i, r.Err)
		}
	}
	list := e.list(v3.KindGlobalNetworkSet)
	e.equal(len(list.Items), 350)
	last := store.Revision("")
	for i, r := range list.Items {
		if !e.s.Reached(revisionOf(r), last) && !e.Limits.OneByOne {
			e.Fatalf("object %d was written before the one before it", i)
		}
		last = revisionOf(r)
		writes[i] = remove(r)
	}
	for i, r := range e.s.WriteAll(e.ctx, store.Commit, writes) {
		if r.Err != nil {
			e.Fatalf("deletion %d: %v", i, r.Err)
		}
	}
	e.equal(len(e.list(v3.KindGlobalNetworkSet).Items), 0)
}

func testDryRun(e *env) {
	e.noError(e.s.Initialise(e.ctx))
	a := e.create(globalSet("a")).(*v3.GlobalNetworkSet)
	e.create(policy("in-default", "default"))
	e.create(tier("full"))
	e.create(policy("p", "full"))
	before := e.list(v3.KindGlobalNetworkSet, v3.KindTier, v3.KindGlobalNetworkPolicy, v3.KindIPPool)
	for _, together := range []bool{true, false} {
		writes := []store.Write{
			create(globalSet("b", "10.0.0.0/8")), create(globalSet("a")), update(at(a, revisionOf(a), "10.0.0.0/8")), update(at(a, "1")),
			remove(globalSet("a")), remove(globalSet("b")), create(policy("q", "nowhere")), remove(tier("full")), create(pool("one", "10.0.0.0/16")),
		}
		var results []store.Result
		if together {
			results = e.s.WriteAll(e.ctx, store.DryRun, writes)
		} else {
			for _, w := range writes {
				results = append(results, e.s.WriteAll(e.ctx, store.DryRun, []store.Write{w})...)
			}
		}
		var got []string
		for _, r := range results {
			if r.Err == nil {
				got = append(got, "ok "+r.Resource.GetResourceVersion()+string(r.Revision))
			} else {
				got = append(got, r.Err.Error())
			}
		}
		rev := a.GetResourceVersion()
		e.equal(got, []string{
			"ok ", "resource already exists: GlobalNetworkSet(a) with error: key exists", "ok " + rev, "update conflict: GlobalNetworkSet(a)",
			"ok " + rev, "resource does not exist: GlobalNetworkSet(b) with error: key not found",
			"resource does not exist: Tier(nowhere) with error: key not found",
			"operation delete is not supported on Tier(full): Cannot delete a non-empty tier (globalnetworkpolicies/p is in it)", "ok ",
		})
	}
	after := e.list(v3.KindGlobalNetworkSet, v3.KindTier, v3.KindGlobalNetworkPolicy, v3.KindIPPool)
	e.equal(after, before)
}

// testUnknownFields has a value that another release wrote.
func testUnknownFields(e *env) {
	key := v3.KeyOf(globalSet("a"))
	e.Put(e, key, []byte(`{"kind":"GlobalNetworkSet","apiVersion":"projectcalico.org/v3","metadata":{"name":"a","uid":"u",`+
		`"creationTimestamp":"2026-01-01T00:00:00Z","ownerReferences":[{"apiVersion":"v1","kind":"X","name":"x","uid":"u"}]},"spec":{"nets":["10.0.0.0/8"],"new":{"a":1}},"status":{"b":[2]}}`))
	inspect := func() string {
		e.Helper()
		_, unknown, err := e.s.Inspect(e.ctx, key)
		e.noError(err)
		text := []string{}
		for _, f := range unknown {
			text = append(text, f.String()+"="+string(f.Value))
		}
		return strings.Join(text, " ")
	}
	const outside = `metadata.ownerReferences=[{"apiVersion":"v1","kind":"X","name":"x","uid":"u"}]`
	const inside = `spec.new={"a":1}`
	const status = `status={"b":[2]}`
	e.equal(inspect(), outside+" "+inside+" "+status)

	// An update keeps what is outside spec; told otherwise, what it is told.
	set := e.get(key).(*v3.GlobalNetworkSet)
	_, unknown, err := e.s.Inspect(e.ctx, key)
	e.noError(err)
	results := e.s.WriteAll(e.ctx, store.DryRun, []store.Write{update(at(set, revisionOf(set), "10.1.0.0/16"))})
	e.noError(results[0].Err)
	e.equal(fmt.Sprint(results[0].Dropped), "[spec.new]")
	updated := e.update(at(set, revisionOf(set), "10.1.0.0/16"))
	e.equal(inspect(), outside+" "+status)
	results = e.s.WriteAll(e.ctx, store.Commit, []store.Write{{Op: store.Update, Resource: updated, Unknown: unknown}})
	e.wantResults(results, "ok")
	e.equal(inspect(), outside+" "+inside+" "+status)
	e.equal(e.get(key).(*v3.GlobalNetworkSet).Spec.Nets, []string{"10.1.0.0/16"})
	results = e.s.WriteAll(e.ctx, store.Commit, []store.Write{
		{Op: store.Update, Resource: e.get(key), Unknown: v3.Unknown{}}, create(globalSet("b")),
	})
	e.wantResults(results, "ok", "ok")
	e.equal(inspect(), "")

	_, _, err = e.s.Inspect(e.ctx, v3.KeyOf(globalSet("c")))
	e.wantError(err, store.ErrNotFound, "resource does not exist: GlobalNetworkSet(c) with error: key not found")
}

func testLastChange(e *env) {
	kinds := []v3.Kind{v3.KindGlobalNetworkSet, v3.KindTier}
	want := func(what string, revision store.Revision) {
		e.Helper()
		got, err := e.s.LastChange(e.ctx, kinds...)
		e.noError(err)
		if got != revision && (got == "" || revision == "" || !e.s.Reached(got, revision) || !e.s.Reached(revision, got)) {
			e.Fatalf("%s: last change at %q, want %q", what, got, revision)
		}
	}
	status := func() {
		e.Helper()
		e.noError(e.s.ReportStatus(e.ctx, store.NodeStatus{Node: "n"}))
	}
	want("an empty store", "")
	a, b := e.create(globalSet("a")), e.create(globalSet("b"))
	want("after writes", revisionOf(b))
	e.create(hostEndpoint("h", "n"))
	status()
	want("after other writes", revisionOf(b))
	deleted := e.s.WriteAll(e.ctx, store.Commit, []store.Write{remove(b)})
	e.wantResults(deleted, "ok")
	status()
	if e.Limits.NoHistory {
		want("after a deletion that is not known", revisionOf(a))
		return
	}
	want("after a deletion", deleted[0].Revision)
	e.wantResults(e.s.WriteAll(e.ctx, store.Commit, []store.Write{remove(hostEndpoint("h", "n"))}), "ok")
	status()
	want("after another kind's deletion", deleted[0].Revision)
	e.Compact(e, e.list().Revision)
	status()
	want("when the history is gone", revisionOf(a))
	last := e.s.WriteAll(e.ctx, store.Commit, []store.Write{remove(a)})
	status()
	want("after the last object's deletion", last[0].Revision)
}

func testReached(e *env) {
	a := revisionOf(e.create(globalSet("a")))
	b := revisionOf(e.create(globalSet("b")))
	for _, c := range []struct {
		r, goal store.Revision
		want    bool
	}{{a, a, true}, {b, a, true}, {a, b, false}, {"", a, false}, {"9", "10", false}, {"10", "9", true}, {"x", "9", false}, {"9", "x", false}, {a, "", true}} {
		if got := e.s.Reached(c.r, c.goal); got != c.want {
			e.Errorf("Reached(%q, %q) is %v", c.r, c.goal, got)
		}
	}
}
