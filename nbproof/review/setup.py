"""Prints the lines of gh that set a repository up for the workflows, or what is missing."""

import json
import re

from nbproof.notebook import tracking
from nbproof.notebook.errors import UserError
from nbproof.notebook.files import root
from nbproof.review.gh import api, repository

RULE = ('{"name": "nbproof", "target": "branch", "enforcement": "active", '
        '"conditions": {"ref_name": {"include": ["~DEFAULT_BRANCH"], "exclude": []}}, '
        '"rules": [{"type": "required_status_checks", "parameters": '
        '{"strict_required_status_checks_policy": false, '
        '"required_status_checks": [{"context": "CHECK"}]}}]}')
POLICIES = "environments/publish/deployment-branch-policies"
SETTINGS = (  # what for, where it is read, what is in the answer when it is set, what sets it
    ("Actions run", "actions/permissions", '"enabled": true',
     "gh api -X PUT repos/REPO/actions/permissions -F enabled=true -f allowed_actions=all"),
    ("a token only reads unless a job asks for more", "actions/permissions/workflow",
     '"default_workflow_permissions": "read"', "gh api -X PUT "
     "repos/REPO/actions/permissions/workflow -f default_workflow_permissions=read"),
    ("a merge waits for CHECK", "rules/branches/BRANCH", '"context": "CHECK"',
     f"echo '{RULE}' | gh api repos/REPO/rulesets --input -"),
    ("publish: BRANCH alone has the secrets that write", POLICIES, '"name": "BRANCH"',
     "gh api -X PUT repos/REPO/environments/publish"
     " -F 'deployment_branch_policy[protected_branches]=false'"
     " -F 'deployment_branch_policy[custom_branch_policies]=true'\n"
     f"gh api repos/REPO/{POLICIES} -f name=BRANCH\n"
     "ssh-keygen -q -t ed25519 -N '' -f key && gh repo deploy-key add key.pub --allow-write\n"
     "gh secret set PUBLISH_KEY --env publish < key && rm key key.pub\n"
     "gh variable set PUBLISH --body 1"),
    ("pages: GitHub Pages take what a workflow built", "pages", '"build_type": "workflow"',
     "gh api repos/REPO/pages -f build_type=workflow\n"
     "gh variable set PAGES_URL --body \"$(gh api repos/REPO/pages --jq .html_url)\""),
)


def setup(check: bool) -> int:
    """Print what sets this repository up; with `check` what is missing, and 1 if it is needed."""
    workflow, (host, name) = root() / ".github" / "workflows" / "report.yml", repository()
    called = workflow.exists() and "workflows/report.yml@" in workflow.read_text(encoding="utf-8")
    head = tracking.git("symbolic-ref", "--short", "refs/remotes/origin/HEAD").strip()
    words = {"REPO": name, "CHECK": "review / pipeline" if called else "pipeline",
             "BRANCH": head.partition("/")[2] or "main"}
    print(f"{name} on {host}:" if check else f"export GH_HOST={host} GH_REPO={host}/{name}")
    states = set()
    for setting in SETTINGS:
        title, path, right, lines = (re.sub("REPO|CHECK|BRANCH", lambda word: words[word[0]], text)
                                     for text in setting)
        state = "off" if ": " in title else "missing"
        try:
            state = "set" if check and right in json.dumps(api(path)) else state
        except UserError as error:
            if "HTTP 404" not in str(error):
                raise
        states.add(state)
        print(f"{state:8} {title}" if check else f"\n# {title}\n{lines}")
    return int(check and "missing" in states)
