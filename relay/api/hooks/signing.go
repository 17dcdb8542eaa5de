package hooks

import (
	"tlsrelay/events/webhook"
	"tlsrelay/relay/api/rest"
)

// signingView says whether and by which key a webhook is signed; without
// signing the key is "".
type signingView struct {
	ID        string `json:"id"`
	PublicKey string `json:"public_key"`
}

func viewSigning(e webhook.Endpoint) (signingView, error) {
	key, err := publicKey(e)
	return signingView{e.ID, key}, err
}

func publicKey(e webhook.Endpoint) (string, error) {
	if len(e.SigningKey) == 0 {
		return "", nil
	}
	return webhook.PublicKey(e.SigningKey)
}

// GetSigning says by which key a webhook is signed.
func (s Calls) GetSigning(r *rest.Request) (any, error) {
	e, err := s.find(r)
	if err != nil {
		return nil, err
	}
	return viewSigning(e)
}

// PatchSigning switches signing. Switching it on again keeps the key pair, whose public
// half consumers have; switching it off forgets the pair.
func (s Calls) PatchSigning(r *rest.Request, o *rest.Object) (any, error) {
	o.Require("enabled")
	var on bool
	o.Bool("enabled", &on)
	if err := o.Err(); err != nil {
		return nil, err
	}
	e, err := s.store(r, "webhook signing changed", func(all []webhook.Endpoint) (webhook.Endpoint, error) {
		e, err := pick(all, r.PathValue("id"))
		if err != nil || on == (len(e.SigningKey) > 0) {
			return e, err
		}
		e.Updated, e.SigningKey = r.Now(), nil
		if on {
			e.SigningKey, err = webhook.NewSigningKey()
		}
		return e, err
	})
	if err != nil {
		return nil, err
	}
	return viewSigning(e)
}
