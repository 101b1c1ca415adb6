/** What `shoal doctor` looks at on the host itself. */
import { readFile, readdir } from 'node:fs/promises'
import { setTimeout } from 'node:timers/promises'
import { MiB } from '../../base/index.ts'
import type { ShownStatus } from '../../api/types.ts'
import { duration, size } from '../format.ts'
import { fail, ok, warn, type Finding } from './finding.ts'

/** Connections, block files and the catalog: network.maxConnections is 300 by default, each with a lane or two beside it. */
const FILES_FAIL = 1_024
const FILES_WARN = 8_192
const FILES_USED_SHARE = 0.8
/** Besides the block slots: the runtime, the DHT and the tables of a hundred thousand blocks. */
const MEMORY_BASE_BYTES = 256 * MiB
/** When this was written; no clock that is right shows less. */
const CLOCK_MIN = Date.UTC(2025, 0, 1)
const CLOCK_STEP_MS = 250
const CLOCK_JUMP_MS = 60_000

/** `daemon`: its pid; `elsewhere` when that is not to be known here; `none`: this process, which has what the same user gets. */
export async function limits (daemon: number | 'elsewhere' | 'none'): Promise<Finding> {
  const unknown = 'the limit of open files cannot be read here'
  if (daemon === 'elsewhere') return ok('limits', `${unknown} for the daemon, whose pid is another one here: run doctor where it runs, as its user`)
  const pid = daemon === 'none' ? undefined : daemon
  const of = pid === undefined ? 'a process of this user' : `the daemon (pid ${pid})`
  const text = await readFile(`/proc/${pid ?? 'self'}/limits`, 'utf8').catch(() => undefined)
  const [, soft = ''] = /^Max open files\s+(\d+|unlimited)/m.exec(text ?? '') ?? []
  if (soft === '') return ok('limits', `${unknown}${pid === undefined ? '' : ` for ${of}: run doctor as the daemon's user`}`)
  const files = soft === 'unlimited' ? Infinity : Number(soft)
  const used = await readdir(`/proc/${pid ?? 'self'}/fd`).then(names => names.length, () => undefined)
  const message = `${of} may open ${soft} files${used === undefined || pid === undefined ? '' : ` and has ${used} open`}`
  const fix = 'set LimitNOFILE=65536 in its unit, or ulimit -n 65536 before starting it'
  if (files < FILES_FAIL) return fail('limits', message, fix)
  if (files < FILES_WARN || (pid !== undefined && used !== undefined && used > files * FILES_USED_SHARE)) return warn('limits', message, fix)
  return ok('limits', message)
}

export function memory (slotsBytes: number, isRunning: boolean): Finding {
  const constrained = process.constrainedMemory()
  const available = process.availableMemory()
  const needed = MEMORY_BASE_BYTES + slotsBytes
  const limit = constrained > 0 && constrained < 2 ** 60 ? `, limited to ${size(constrained)}` : ''
  const message = `${size(available)} available${limit}; the daemon takes about ${size(needed)} (storage.slots: ${size(slotsBytes)})`
  // What a running daemon needs it already has.
  if (available >= (isRunning ? MEMORY_BASE_BYTES / 4 : needed)) return ok('memory', message)
  return (available < needed / 4 ? fail : warn)('memory', message, 'free memory, raise the limit of the unit or container, or lower storage.slots')
}

/** Steps, jumps since the daemon started, and files from the future. `newestMs`: when something in the data directory was last written. */
export async function clock (status: ShownStatus | undefined, newestMs: number | undefined): Promise<Finding[]> {
  const fix = 'keep the clock with NTP (timedatectl set-ntp true, or chrony)'
  const [wall, monotonic] = [Date.now(), performance.now()]
  await setTimeout(CLOCK_STEP_MS)
  const drift = (Date.now() - wall) - (performance.now() - monotonic)
  const now = Date.now()
  const found: Finding[] = []
  const at = new Date(now).toISOString()
  if (now < CLOCK_MIN) found.push(fail('clock', `the clock says ${at}, which is long past: certificates and records will look expired or from the future`, fix))
  if (Math.abs(drift) > CLOCK_STEP_MS / 5) found.push(warn('clock', `the clock was moved by ${Math.round(drift)} ms within ${CLOCK_STEP_MS} ms`, fix))
  if (newestMs !== undefined && newestMs > now + CLOCK_JUMP_MS) {
    found.push(warn('clock', `something in the data directory was written ${duration((newestMs - now) / 1000)} in the future: the clock was set back, or the volume's server has another`, fix))
  }
  if (status !== undefined) {
    const jump = now - status.startedAt - status.uptimeSeconds * 1000
    if (Math.abs(jump) > CLOCK_JUMP_MS) found.push(warn('clock', `the clock was set ${jump > 0 ? 'on' : 'back'} by ${duration(Math.abs(jump) / 1000)} since the daemon started`, `${fix}; then start the daemon again`))
  }
  // Nothing on the wire carries a time of day, so there is nothing of peers to compare with, and no need to.
  return found.length > 0 ? found : [ok('clock', `${at}, runs evenly; peers tell no times, and need none`)]
}
