"""The agent as a part of its machine: installed as a service, looked after, removed again."""
