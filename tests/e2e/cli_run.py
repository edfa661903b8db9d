#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""`tmem run` as its caller sees it: status, signals, terminal, orphans."""

import json
import os
import pty
import signal
import subprocess
import time

from cli_lib import Case, Place, main, read_file, state_of, stat_fields
from cli_lib import wait_for

RUN = ("run", "-m", "64M", "--")


class Status(Case):
    def test_the_program_s_status_is_passed_on(self):
        for status in (0, 1, 42, 255):
            self.assertEqual(
                self.tmem(*RUN, "sh", "-c", "exit %d" % status)[0], status)

    def test_the_program_s_signal_is_passed_on(self):
        for sig in (signal.SIGTERM, signal.SIGKILL, signal.SIGUSR1):
            self.assertEqual(
                self.tmem(*RUN, "sh", "-c", "kill -%d $$" % sig)[0], -sig)

    def test_no_core_of_our_own_is_written(self):
        self.assertEqual(
            self.tmem(*RUN, "sh", "-c", "ulimit -c 0; kill -SEGV $$",
                      cwd=self.folder)[0], -signal.SIGSEGV)
        self.assertEqual(os.listdir(self.folder), [])

    def test_input_output_and_environment_are_the_program_s(self):
        env = dict(os.environ, LD_PRELOAD="")
        process = self.start(*RUN, "sh", "-c",
                             "cat; echo err >&2; echo $LD_PRELOAD",
                             stdin=subprocess.PIPE, env=env)
        out, err = process.communicate("in\n", timeout=60)
        self.assertEqual((out, err), (
            "in\n%s/libtmem-pager.so\n" % Place.folder, "err\n"))

    def test_an_existing_ld_preload_is_kept(self):
        other = self.path("other.so")
        os.link(Place.folder + "/libtmem-pager.so", other)
        env = dict(os.environ, LD_PRELOAD=other)
        out = self.tmem(*RUN, "sh", "-c", "echo $LD_PRELOAD", env=env)[1]
        self.assertEqual(out, "%s/libtmem-pager.so:%s\n" % (Place.folder,
                                                           other))

    def test_output_ends_with_the_program_s_part_in_it(self):
        # `tmem run x | reader` must not wait for the keeper.
        process = self.start(*RUN, "sh", "-c", "echo a; exec >&- 2>&-; "
                             "while [ ! -e go ]; do read x < /dev/null; done; "
                             "true",
                             cwd=self.folder)
        self.assertEqual(process.stdout.read(), "a\n")
        open(self.path("go"), "w").close()
        self.assertEqual(process.wait(60), 0)

    def test_closed_descriptors_stay_closed_and_harm_nobody(self):
        tmem = self.start(*RUN, "sh", "-c", "test ! -e /proc/self/fd/0 && "
                          "test ! -e /proc/self/fd/2 && exit 8",
                          preexec_fn=lambda: (os.close(0), os.close(2)))
        self.assertEqual(tmem.wait(60), 8)

    def test_an_ignored_sigchld_does_not_cost_the_status(self):
        def ignore():
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        self.assertEqual(
            self.tmem(*RUN, "sh", "-c", "exit 8", preexec_fn=ignore)[0], 8)
        status, out, _ = self.tmem(*RUN, "grep", "SigIgn",
                                   "/proc/self/status", preexec_fn=ignore)
        self.assertEqual(status, 0)
        self.assertTrue(int(out.split()[1], 16) & 1 << signal.SIGCHLD - 1)

    def test_the_report_is_whole_when_tmem_has_ended(self):
        path = self.path("report")
        for _ in range(30):
            self.assertEqual(
                self.tmem("run", "-m", "64M", "--report", "json",
                          "--report-file", path, "--", "true")[0], 0)
            self.assertEqual(json.loads(read_file(path))["exit_status"], 0)

    def test_a_missing_interpreter_is_not_found(self):
        path = self.path("script")
        with open(path, "w", encoding="utf-8") as f:
            f.write("#!/nonexistent/interpreter\n")
        os.chmod(path, 0o755)
        self.assertEqual(self.tmem(*RUN, path)[0], 127)

    def test_a_script_without_a_first_line_is_the_shell_s(self):
        path = self.path("script")
        with open(path, "w", encoding="utf-8") as f:
            f.write("echo shell\n")
        os.chmod(path, 0o755)
        self.assertEqual(self.tmem(*RUN, path)[:2], (0, "shell\n"))


class Signals(Case):
    def test_signals_are_passed_on_once(self):
        for sig in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP,
                    signal.SIGUSR1, signal.SIGWINCH, signal.SIGRTMIN + 3,
                    signal.SIGABRT, signal.SIGSEGV, signal.SIGXCPU,
                    signal.SIGURG):
            tmem = self.start_fake("catch=%d" % sig, "print=ready",
                                   "wait-signal=%d" % sig, "exit=3")
            self.assertEqual(tmem.stdout.readline(), "ready\n")
            tmem.send_signal(sig)
            self.assertEqual(tmem.wait(60), 3, sig)

    def test_a_signal_that_kills_the_program_kills_us(self):
        tmem = self.start_fake("print=ready", "wait-file=/nonexistent")
        tmem.stdout.readline()
        tmem.send_signal(signal.SIGTERM)
        self.assertEqual(tmem.wait(60), -signal.SIGTERM)

    def test_a_signal_that_comes_too_late_is_lost_alone(self):
        for i in range(40):
            tmem = self.start_fake("print=ready", "wait-file=/nonexistent")
            tmem.stdout.readline()
            tmem.send_signal(signal.SIGTERM)
            time.sleep(i * 1e-4)
            tmem.send_signal(signal.SIGTERM)
            err = tmem.communicate(timeout=60)[1]
            self.assertEqual((tmem.returncode, err), (-signal.SIGTERM, ""))

    def test_a_program_that_signals_its_group_is_not_signalled_twice(self):
        # The second would kill it: the trap is gone.  What we send last is
        # passed on last.
        script = ("trap 'trap - USR1; echo once' USR1; "
                  "trap 'echo alive; exit 0' USR2; "
                  "kill -USR1 0; while :; do read x < /dev/null; done")
        tmem = self.start(*RUN, "sh", "-c", script, start_new_session=True)
        self.assertEqual(tmem.stdout.readline(), "once\n")
        tmem.send_signal(signal.SIGUSR2)
        out, _ = tmem.communicate(timeout=60)
        self.assertEqual((tmem.returncode, out), (0, "alive\n"))

    def test_ignored_signals_stay_ignored(self):
        tmem = self.start(*RUN, Place.fake, "raise=15", "exit=4",
                          preexec_fn=lambda: signal.signal(signal.SIGTERM,
                                                           signal.SIG_IGN))
        self.assertEqual(tmem.wait(60), 4)

    def test_stop_and_continue(self):
        tmem = self.start_fake("pid", "print=ready",
                               "wait-file=" + self.path("go"))
        pid = int(tmem.stdout.readline())
        tmem.stdout.readline()
        os.kill(pid, signal.SIGSTOP)
        wait_for(lambda: state_of(tmem.pid) == "T", "tmem to stop")
        tmem.send_signal(signal.SIGCONT)
        wait_for(lambda: state_of(pid) not in ("T", ""), "the program")
        open(self.path("go"), "w").close()
        self.assertEqual(tmem.wait(60), 0)

    def test_a_killed_front_leaves_program_and_budget_alone(self):
        report = self.path("report")
        tmem = self.start_fake("hello", "live", "print=ready", "wait-file=" +
                               self.path("go"), "touch=" + self.path("done"),
                               options=("-m", "64M", "--report-file", report))
        tmem.stdout.readline()
        tmem.kill()
        tmem.wait()
        open(self.path("go"), "w").close()
        self.wait_file("done")
        wait_for(lambda: "exit status 0" in read_file(report), "the report")


class Terminal(Case):
    def shell(self):
        """An interactive shell on a terminal of its own: (process, fd)."""
        ours, theirs = pty.openpty()
        shell = subprocess.Popen(
            ["bash", "--norc", "--noprofile", "-i"], stdin=theirs,
            stdout=theirs, stderr=theirs, start_new_session=True,
            preexec_fn=lambda: __import__("fcntl").ioctl(
                0, __import__("termios").TIOCSCTTY, 0),
            env=dict(os.environ, PS1="", TERM="dumb"))
        os.close(theirs)
        self.started.append(shell)
        self.seen = ""
        return shell, ours

    def expect(self, fd, text):
        while text not in self.seen:
            self.seen += os.read(fd, 4096).decode("latin-1")
        self.seen = self.seen.partition(text)[2]

    def test_ctrl_z_fg_and_ctrl_c(self):
        shell, fd = self.shell()
        command = "%s run -m 64M --report none -- %s pid catch=18 " \
            "print=rea''dy wait-signal=18 print=cont''inued " \
            "wait-file=/nonexistent; echo status=$?\n" % (Place.tmem,
                                                          Place.fake)
        os.write(fd, command.encode())
        self.expect(fd, "ready")
        os.write(fd, b"\x1a")
        self.expect(fd, "Stopped")
        os.write(fd, b"fg\n")
        self.expect(fd, "continued")
        os.write(fd, b"\x03")
        os.write(fd, b"echo st''atus=$?\n")
        self.expect(fd, "status=130")
        os.write(fd, b"exit\n")
        shell.wait(60)
        os.close(fd)

    def test_the_report_is_text_on_a_terminal(self):
        shell, fd = self.shell()
        os.write(fd, ("%s run -m 64M -- true\n" % Place.tmem).encode())
        self.expect(fd, "tmem: program")
        self.expect(fd, "asked 64.0 MiB")
        os.write(fd, b"exit\n")
        shell.wait(60)
        os.close(fd)


class Tree(Case):
    def test_orphans_are_reaped(self):
        script = ("for i in 1 2 3 4 5; do (sh -c 'echo $$; kill -9 $$' &); "
                  "done; read x")
        tmem = self.start(*RUN, "sh", "-c", script, stdin=subprocess.PIPE)
        pids = [int(tmem.stdout.readline()) for _ in range(5)]
        for pid in pids:
            wait_for(lambda: state_of(pid) == "", "pid %d to be reaped" % pid)
        tmem.stdin.close()
        self.assertEqual(tmem.wait(60), 1)

    def test_as_pid_1(self):
        process = subprocess.run(
            ["unshare", "--pid", "--fork", "--mount-proc", Place.tmem, *RUN,
             "sh", "-c", "(true &) ; echo $PPID; exit 6"], timeout=60,
            capture_output=True, text=True, stdin=subprocess.DEVNULL)
        self.assertEqual(process.returncode, 6, process)

    def test_exec_gives_the_pid_away(self):
        report = self.path("report")
        tmem = self.start("run", "-m", "64M", "--exec", "--report", "json",
                          "--report-file", report, "--", Place.fake, "pid",
                          "hello", "live", "uffd", "count=faults_store:3",
                          "fork", "hello", "live", "count=faults_store:4",
                          "end", "reap", "exit=9")
        self.assertEqual(int(tmem.stdout.readline()), tmem.pid)
        self.assertEqual(tmem.wait(60), 9)
        r = wait_for(lambda: read_file(report).endswith("\n") and
                     json.loads(read_file(report)), "the report")
        self.assertEqual(r["counters"]["faults_store"], 7)
        self.assertIsNone(r["exit_status"])

    def test_exec_leaves_no_child(self):
        tmem = self.start("run", "-m", "64M", "--exec", "--", "sh", "-c",
                          "echo go; read x", stdin=subprocess.PIPE)
        tmem.stdout.readline()
        with open("/proc/%d/task/%d/children" % (tmem.pid, tmem.pid),
                  encoding="ascii") as f:
            self.assertEqual(f.read(), "")
        tmem.stdin.close()
        self.assertEqual(tmem.wait(60), 1)

    def test_the_keeper_has_a_session_of_its_own(self):
        tmem = self.start(*RUN, "sh", "-c", "echo $PPID; read x",
                          stdin=subprocess.PIPE)
        keeper = int(tmem.stdout.readline())
        self.assertNotEqual(keeper, tmem.pid)
        self.assertEqual(wait_for(
            lambda: int(stat_fields(keeper)[3]) == keeper, "setsid"), True)
        tmem.stdin.close()
        tmem.wait(60)


if __name__ == "__main__":
    main()
