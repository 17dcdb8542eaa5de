package content

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"tlsrelay/relay"
)

func TestSMTPAPI(t *testing.T) {
	long := strings.Repeat("x", 5000)
	var rcpts []relay.Recipient
	for _, s := range []string{"B@rcpt.example", "c@bücher.example", "B@rcpt.example"} {
		a, err := relay.ParseAddress(s, true)
		if err != nil {
			t.Fatal(err)
		}
		rcpts = append(rcpts, relay.Recipient{Address: a})
	}
	for _, tt := range []struct{ in, category, args, fault string }{
		{in: `{}`, args: "map[]"},
		{in: `{"category": "a"}`, category: `"a"`, args: "map[]"},
		{in: `{"category": ["a", "b"]}`, category: `["a","b"]`, args: "map[]"},
		{in: `{"category": null, "unique_args": null}`, args: "map[]"},
		{in: `{"filters": {}, "asm_group_id": 1, "ip_pool": "p"}`, args: "map[]"},
		{in: `{"unique_args": {"a": "1", "b": 2, "c": false, "d": null}}`, args: "map[a:1 b:2 c:false d:]"},
		{in: `=?UTF-8?B?eyJjYXRlZ29yeSI6ImEifQ==?=`, category: `"a"`, args: "map[]"},
		{in: `=?UTF-8?Q?=7B=22category=22=3A?= =?UTF-8?Q?=22a=22=7D?=`, category: `"a"`, args: "map[]"},
		{in: `{"category": "=?UTF-8?Q?a?="}`, category: `"=?UTF-8?Q?a?="`, args: "map[]"},
		{in: `{"unique_args": {"a": "` + long + `", "b": "` + long[2:] + `"}}`, args: ""},
		{in: ``, args: "map[]"},
		{in: ` `, args: "map[]"},
		{in: `[]`, args: "map[]"},
		{in: `[ ]`, args: "map[]"},
		{in: `null`, args: "map[]"},
		{in: `""`, args: "map[]"},
		{in: `=?UTF-8?B??=`, args: "map[]"},
		{in: `{"to":[],"sub":{},"section":{ },"send_at":null,"send_each_at":"","unique_args":[],"category":[],"filters":[]}`, args: "map[]"},
		{in: `{"to":null,"send_at":0,"send_each_at":[],"unique_args":"","category":"","filters":{}}`, args: "map[]"},
		{in: `{"to":["B@Rcpt.EXAMPLE","c@xn--bcher-kva.example", "B@rcpt.example"]}`, args: "map[]"},
		{in: `{"to":["The B <B@rcpt.example>","c@bücher.example."]}`, args: "map[]"},
		{in: `{"to":["", null]}`, args: "map[]"},
		{in: `{"to":["B@rcpt.example"]}`, fault: "Invalid SMTPAPI header: to is not supported"},
		{in: `{"to":["b@rcpt.example","c@bücher.example"]}`, fault: "Invalid SMTPAPI header: to is not supported"},
		{in: `{"to":["B@rcpt.example","c@bücher.example","d@rcpt.example"]}`, fault: "Invalid SMTPAPI header: to is not supported"},
		{in: `{"to":"B@rcpt.example"}`, fault: "Invalid SMTPAPI header: to is not supported"},
		{in: `{"to":["nobody"]}`, fault: "Invalid SMTPAPI header: to is not supported"},
		{in: `{"to":{"B@rcpt.example":1}}`, fault: "Invalid SMTPAPI header: to is not supported"},
		{in: `{"category": 7}`, category: `"7"`, args: "map[]"},
		{in: `{"category": 0}`, category: `"0"`, args: "map[]"},
		{in: `{"category": [1, "a" , 2.50, true, null, ""]}`, category: `["1","a","2.50","true"]`, args: "map[]"},
		{in: `{"category": [null]}`, args: "map[]"},
		{in: `{"category": [["a"]]}`, fault: "Invalid SMTPAPI header: category is neither a string nor an array of strings"},
		{in: `{"category": {"a": 1}}`, fault: "Invalid SMTPAPI header: category is neither a string nor an array of strings"},
		{in: `{"unique_args": {"a": [], "b": {}, "c": ""}}`, args: "map[a: b: c:]"},
		{in: `{"filters": {"clicktrack": {"settings": {"enable": 1}}, "opentrack": {"settings": {"enable": 1}}}}`, args: "map[]"},
		{in: `{"filters": {"bcc": {"settings": {"enable": 0, "email": "x@y.example"}}, "footer": {"settings": {"enable": "0"}}, "template": {"settings": {"enable": false}}}}`, args: "map[]"},
		{in: `{"filters": {"bcc": {}, "footer": {"settings": []}, "templates": null, "template": 0}}`, args: "map[]"},
		{in: `{"filters": {"bcc": {"settings": {"enable": 1, "email": "x@y.example"}}}}`, fault: "Invalid SMTPAPI header: filter bcc is not supported"},
		{in: `{"filters": {"bcc": {"enable": true}}}`, fault: "Invalid SMTPAPI header: filter bcc is not supported"},
		{in: `{"filters": {"footer": {"settings": {"enable": "1", "text/plain": "x"}}}}`, fault: "Invalid SMTPAPI header: filter footer is not supported"},
		{in: `{"filters": {"template": {"settings": {"enable": "true"}}}}`, fault: "Invalid SMTPAPI header: filter template is not supported"},
		{in: `{"filters": {"templates": {"settings": {"template_id": "5997"}}}}`, fault: "Invalid SMTPAPI header: filter templates is not supported"},
		{in: `{"filters": {"Footer": 1}}`, fault: "Invalid SMTPAPI header: filter footer is not supported"},
		{in: `{"filters": ["bcc"]}`, fault: "Invalid SMTPAPI header: filters is not an object"},
		{in: `["a"]`, fault: "Invalid SMTPAPI header"},
		{in: `7`, fault: "Invalid SMTPAPI header"},
		{in: `"x"`, fault: "Invalid SMTPAPI header"},
		{in: `{"category": "a"`, fault: "Invalid SMTPAPI header"},
		{in: `{} {}`, fault: "Invalid SMTPAPI header"},
		{in: `{"sub": {"-name-": [""]}}`, fault: "Invalid SMTPAPI header: sub is not supported"},
		{in: `{"section": {"a": "b"}}`, fault: "Invalid SMTPAPI header: section is not supported"},
		{in: `{"send_at": 1}`, fault: "Invalid SMTPAPI header: send_at is not supported"},
		{in: `{"send_each_at": [1]}`, fault: "Invalid SMTPAPI header: send_each_at is not supported"},
		{in: `{"category": ["1","2","3","4","5","6","7","8","9","10","11"]}`, fault: "Invalid SMTPAPI header: more than 10 categories"},
		{in: `{"category": "` + long + long + `"}`, fault: "Invalid SMTPAPI header: category has more than 10000 bytes"},
		{in: `{"unique_args": ["a"]}`, fault: "Invalid SMTPAPI header: unique_args is not an object"},
		{in: `{"unique_args": {"a": {"b": 1}}}`, fault: "Invalid SMTPAPI header: a value in unique_args is not a string"},
		{in: `{"unique_args": {"a": "` + long + `", "b": "` + long + `"}}`, fault: "Invalid SMTPAPI header: unique_args has more than 10000 bytes"},
	} {
		var api Summary
		err := api.readSMTPAPI(tt.in, rcpts)
		switch {
		case err != nil && err.Error() != tt.fault, err == nil && tt.fault != "":
			t.Errorf("%.60s: %v", tt.in, err)
		case err != nil:
		case string(api.Category) != tt.category, tt.args != "" && fmt.Sprint(api.UniqueArgs) != tt.args:
			t.Errorf("%.60s: %s %v", tt.in, api.Category, api.UniqueArgs)
		}
	}
}

func FuzzSMTPAPI(f *testing.F) {
	f.Add(`{"category": ["a"], "unique_args": {"a": 1}}`)
	f.Add(`=?UTF-8?B?eyJjYXRlZ29yeSI6ImEifQ==?=`)
	f.Add(`{"category": [1, null, [], "a"], "to": ["A <a@b.example>", ""], "filters": {"bcc": {"settings": {"enable": 1}}}}`)
	f.Fuzz(func(t *testing.T, value string) {
		var api Summary
		if err := api.readSMTPAPI(value, nil); err != nil {
			if !strings.HasPrefix(err.Error(), "Invalid SMTPAPI header") || strings.ContainsAny(err.Error(), "\r\n") {
				t.Fatalf("reply %q", err)
			}
			return
		}
		if len(api.Category) > 0 && !json.Valid(api.Category) {
			t.Fatalf("category %q", api.Category)
		}
	})
}
