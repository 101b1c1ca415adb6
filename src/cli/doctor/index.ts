/**
 * `shoal doctor`: what an operator would look at one after the other. It asks the daemon if there is one and looks at the
 * host either way; it changes nothing but for a probe file that it removes again.
 */
import { ApiClient, isAbsent } from '../../api/client.ts'
import type { ShownStatus } from '../../api/types.ts'
import { BLOCK_BYTES_MAX, DaemonUnreachableError, asError } from '../../base/index.ts'
import { packageVersion } from '../../base/version.ts'
import { resolveSettings } from '../../node/settings.ts'
import type { PeerStatus } from '../../node/types.ts'
import type { Config } from '../config.ts'
import { duration } from '../format.ts'
import { stateOf } from '../process-state.ts'
import { brokenOff, disk, lookAt, permissions, version } from './disk.ts'
import { fail, ok, warn, type Finding } from './finding.ts'
import { clock, limits, memory } from './host.ts'
import { httpPorts, peers, ports, problems } from './network.ts'

export type { Finding } from './finding.ts'

export interface DoctorInit {
  dataDirectory: string
  socketPath: string
  config: Config
}

/** A daemon that lives answers in milliseconds. */
const DAEMON_TIMEOUT_MS = 5_000

export async function examine ({ dataDirectory, socketPath, config }: DoctorInit): Promise<Finding[]> {
  const settings = resolveSettings(config.node)
  const { hf, api, metrics } = config.daemon
  const directory = await lookAt(dataDirectory)
  const { status, known, finding } = await ask(socketPath)
  const daemon = status === undefined ? 'none' : await whoIs(directory.pid)
  const slotsBytes = (status?.storage.slots.size ?? settings.storage.slots) * BLOCK_BYTES_MAX
  return [
    finding,
    ...(status === undefined ? [] : problems(status)),
    ok('versions', `Node ${process.versions.node}, command line ${packageVersion()}`),
    ...(status === undefined || status.version === packageVersion() ? [] : [warn('versions', `the daemon is version ${status.version} and this command line ${packageVersion()}`, 'start the daemon again, with the version that is meant')]),
    await version(directory),
    ...await clock(status, directory.newestMs),
    await limits(daemon),
    memory(slotsBytes, status !== undefined),
    ...await ports(settings, status),
    ...await httpPorts({ hf: hf.listen, api: api.tcp.port === undefined ? undefined : { host: api.tcp.host, port: api.tcp.port }, metrics: metrics.listen }, status !== undefined),
    ...await disk(directory, settings.storage, status),
    ...await brokenOff(directory, status),
    ...await permissions(directory, socketPath),
    ...(status === undefined ? [] : peers(status, known))
  ]
}

/** The pid of the daemon that answers, if that is its own here: in a container it has another, and what has it here is not the daemon. */
async function whoIs (pid: number | undefined): Promise<number | 'elsewhere'> {
  return pid !== undefined && await stateOf(pid) === 'alive' ? pid : 'elsewhere'
}

async function ask (socketPath: string): Promise<{ status?: ShownStatus, known: PeerStatus[], finding: Finding }> {
  const client = new ApiClient({ socketPath })
  const startedAt = performance.now()
  try {
    const signal = AbortSignal.timeout(DAEMON_TIMEOUT_MS)
    const status = await client.status({ signal })
    const known = await client.peers({ signal })
    return { status, known, finding: ok('daemon', `${status.peerId} answers in ${Math.round(performance.now() - startedAt)} ms, up ${duration(status.uptimeSeconds)}`) }
  } catch (error) {
    // Only where nobody listens there is none: a socket that this user may not use has a daemon behind it.
    if (error instanceof DaemonUnreachableError && isAbsent(error.cause)) {
      return { known: [], finding: warn('daemon', `no daemon listens on ${socketPath}: what follows is about the host alone`, 'start one with shoal daemon; if one runs, give its --data or --api, as its user') }
    }
    if (error instanceof DaemonUnreachableError) return { known: [], finding: fail('daemon', error.message, 'what follows is about the host alone; run this again as the user of the daemon') }
    return { known: [], finding: fail('daemon', `the daemon on ${socketPath} does not answer: ${asError(error).message}`, 'see its log; start it again') }
  }
}
