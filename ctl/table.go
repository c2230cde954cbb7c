package ctl

import (
	"bufio"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"text/tabwriter"

	v3 "margay/api/v3"
)

// maxNets is where a list of nets is cut in a table, in bytes.
const maxNets = 80

// How wide a column of a table is at least, and how far it is from the next.
const (
	minWidth = 5
	padding  = 3
)

// A tableFormat prints resources as a table each, or each listing as one.
type tableFormat struct {
	headings  []string // custom columns; nil: those of the kind
	wide      bool
	namespace bool           // NAMESPACE first, for kinds that have one
	states    endpointStates // STATUS last, for endpoints; nil: not shown
	asNumber  func() string  // of nodes that set none
}

func (f tableFormat) print(w io.Writer, results []any) error {
	for _, result := range results {
		kind, rows := rowsOf(result)
		columns, err := f.columns(kind)
		if err != nil {
			return err
		}
		if err := writeTable(w, columns, rows); err != nil {
			return err
		}
	}
	return nil
}

// rowsOf returns what a result of get is a table of.
func rowsOf(result any) (kindView, []v3.Resource) {
	if l, ok := result.(*list); ok {
		return viewOf(v3.Kind(strings.TrimSuffix(l.Kind, "List"))), l.Items
	}
	r := result.(v3.Resource)
	return viewOf(v3.KeyOf(r).Kind), []v3.Resource{r}
}

// columns returns the columns to print, in order.
func (f tableFormat) columns(kind kindView) ([]column, error) {
	names := f.headings
	if names == nil {
		names = kind.ps
		if f.wide {
			names = kind.wide
		}
	}
	if _, ok := kind.column("NAMESPACE"); ok && f.namespace && !slices.Contains(names, "NAMESPACE") {
		names = append([]string{"NAMESPACE"}, names...)
	}
	var out []column
	for _, name := range names {
		col, ok := kind.column(name)
		if !ok {
			return nil, fmt.Errorf("unknown heading %s, valid values are: %s", name, strings.Join(kind.headings(), ", "))
		}
		if kind.kind == v3.KindNode && name == "ASN" {
			col = f.inheriting(col)
		}
		out = append(out, col)
	}
	if f.states != nil && isEndpoint(kind.kind) {
		out = append(out, column{"STATUS", f.states.of})
	}
	return out, nil
}

// inheriting returns the column of AS numbers, with that of nodes that set none.
func (f tableFormat) inheriting(col column) column {
	return cell(col.heading, func(n *v3.Node) string {
		if n.Spec.BGP != nil && n.Spec.BGP.ASNumber == nil {
			return "(" + f.asNumber() + ")"
		}
		return col.cell(n)
	})
}

// writeTable aligns cells with three spaces between, and leaves a line free after the table.
func writeTable(w io.Writer, columns []column, rows []v3.Resource) error {
	out := bufio.NewWriter(w)
	tw := tabwriter.NewWriter(out, minWidth, 1, padding, ' ', 0)
	for _, col := range columns {
		fmt.Fprint(tw, col.heading, "\t")
	}
	fmt.Fprintln(tw)
	for _, row := range rows {
		for _, col := range columns {
			fmt.Fprint(tw, oneLine(col.cell(row)), "\t")
		}
		fmt.Fprintln(tw)
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(out)
	return out.Flush()
}

// value prints what a pointer points to, or <nil>, as %v prints it.
func value[T any](p *T) string {
	if p == nil {
		return "<nil>"
	}
	return fmt.Sprint(*p)
}

// join puts the elements of a slice, or key=value of a map in order, between separators. It is a function of templates
// as well, hence the any.
func join(items any, separator string) string { return joinAndTruncate(items, separator, 0) }

// joinAndTruncate is join, cut to maxLen bytes of which the last three are dots; 0 is no limit.
func joinAndTruncate(items any, separator string, maxLen int) string {
	text := strings.Join(elements(items), separator)
	if maxLen <= 0 || len(text) <= maxLen {
		return text
	}
	return text[:max(0, maxLen-len("..."))] + "..."
}

func elements(items any) []string {
	if items == nil {
		return nil
	}
	v := reflect.ValueOf(items)
	var out []string
	switch v.Kind() {
	case reflect.Slice:
		for i := range v.Len() {
			out = append(out, fmt.Sprint(v.Index(i).Interface()))
		}
	case reflect.Map:
		for _, key := range v.MapKeys() {
			out = append(out, fmt.Sprintf("%v=%v", key.Interface(), v.MapIndex(key).Interface()))
		}
		slices.Sort(out)
	default:
		out = []string{fmt.Sprint(items)}
	}
	return out
}
