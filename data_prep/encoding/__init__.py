"""The command ``bimodal-prep encode``: encode shards by locked towers, once."""
