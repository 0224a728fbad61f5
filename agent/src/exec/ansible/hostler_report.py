"""Tells Hostler how far a playbook is: one JSON line a task, appended to the file named by HOSTLER_REPORT."""

import json
import os

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: hostler_report
type: notification
short_description: reports each task of a playbook to Hostler
description: Appends a JSON line with progress and message to the file named by HOSTLER_REPORT.
"""

# A line of the report is at most 4 KiB.
LONGEST = 500


def count(items):
    """The tasks in blocks of blocks."""
    total = 0
    for item in items or []:
        if isinstance(item, list):
            total += count(item)
        elif hasattr(item, "block"):
            total += count(item.block)
        else:
            total += 1
    return total


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "hostler_report"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self):
        super().__init__()
        self.path = os.environ.get("HOSTLER_REPORT")
        self.total = 0
        self.seen = 0

    def say(self, **line):
        if not self.path:
            return
        try:
            report = os.open(self.path, os.O_WRONLY | os.O_APPEND)
            try:
                os.write(report, (json.dumps(line) + "\n").encode("ascii"))
            finally:
                os.close(report)
        except OSError:
            # A report that cannot be written must not fail the work.
            pass

    def v2_playbook_on_start(self, playbook):
        try:
            self.total = sum(count(play.get_tasks()) for play in playbook.get_plays())
        except Exception:
            # Without a total there is no progress, only messages.
            self.total = 0

    def v2_playbook_on_task_start(self, task, is_conditional):
        self.step(task)

    def v2_playbook_on_handler_task_start(self, task):
        self.step(task)

    def step(self, task):
        line = {"message": str(task.get_name())[:LONGEST]}
        if self.total:
            # Gathering facts and included tasks are not in the total.
            line["progress"] = min(99, self.seen * 100 // self.total)
        self.seen += 1
        self.say(**line)

    def v2_runner_on_failed(self, result, ignore_errors=False):
        if not ignore_errors:
            self.trouble("failed", result)

    def v2_runner_on_unreachable(self, result):
        self.trouble("unreachable", result)

    def trouble(self, what, result):
        task = getattr(result, "task", None) or result._task
        body = getattr(result, "result", None) or result._result
        # Under no_log there is no msg to be told.
        reason = "" if task.no_log else str(body.get("msg", ""))
        self.say(message=": ".join(part for part in (what, str(task.get_name()), reason) if part)[:LONGEST])
