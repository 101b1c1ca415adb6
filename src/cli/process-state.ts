/** What the process table says about a pid that a daemon told or left behind. */
import { readFile } from 'node:fs/promises'
import { basename } from 'node:path'
import { systemCode } from '../base/index.ts'
import { layoutOf } from '../storage/layout.ts'

/**
 * `gone`: nothing runs under it; a zombie, whose parent has not looked yet, has ended too. `other`: something that is plainly no
 * daemon, because the pid is of another PID namespace (a container's), or was given anew. `alive`: it may well be the daemon.
 */
export type ProcessState = 'gone' | 'other' | 'alive'

/** Of a thread of the kernel, which has no command line; nor has a process that is just ending, and that is another matter. */
const KERNEL_PARENT = '2'
/** What runs a daemon, or a program that has a node in it. */
const PROGRAMS = /^(?:node|shoal)/

export async function stateOf (pid: number): Promise<ProcessState> {
  if (!exists(pid)) return 'gone'
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => undefined)
  if (stat === undefined) return exists(pid) ? 'alive' : 'gone' // no /proc here, or none for this user
  // After the name, which may hold anything: `) STATE PARENT ...` (proc_pid_stat(5)).
  const [state = '', parent] = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  if ('ZX'.includes(state)) return 'gone'
  const line = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')
  const [program = ''] = line.split('\0')
  if (program === '') return pid === Number(KERNEL_PARENT) || parent === KERNEL_PARENT ? 'other' : 'alive'
  return PROGRAMS.test(basename(program)) ? 'alive' : 'other'
}

/** Of the daemon that has a data directory, or had it; in the PID namespace it runs in. */
export async function pidIn (dataDirectory: string): Promise<number | undefined> {
  const text = await readFile(layoutOf(dataDirectory).lockOwner, 'utf8').catch(() => '')
  return /^[1-9]\d{0,9}\s*$/.test(text) ? Number(text) : undefined
}

/** Whether a process has this id, whoever owns it. */
function exists (pid: number): boolean {
  try {
    return process.kill(pid, 0)
  } catch (error) {
    return systemCode(error) === 'EPERM'
  }
}
