# SPDX-License-Identifier: MIT
"""The policies of `tmem run` that can be switched off: whatever its help says
can be "off".  So a new switch is in the tests that run without all of them."""
import re
import subprocess


def all_off(tmem):
    """The options that switch all of them off."""
    text = subprocess.run([tmem, "run", "--help"], check=True,
                          stdout=subprocess.PIPE, text=True).stdout
    options = ["--%s=off" % name for name, choices in
               re.findall(r"^ +(?:-\w, )?--([\w-]+) (\S+)$", text, re.M)
               if "off" in choices.split("|")]
    assert "--read-ahead=off" in options, text
    return options
