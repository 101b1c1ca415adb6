import { execFileSync } from 'node:child_process'
import { basename, join } from 'node:path'
import { LineProcess } from '../processes.ts'
import type { Contender } from './types.ts'

const PROGRAM = new URL('../libtorrent/peer.py', import.meta.url).pathname
/** Debian's own: its package is for no other. */
const PYTHON = '/usr/bin/python3'

/** What somebody sets who wants it to win on a fast network. Names and units: libtorrent.org/reference-Settings.html. */
const SETTINGS = {
  enable_outgoing_utp: false,
  enable_incoming_utp: false,
  enable_dht: false,
  enable_lsd: false,
  enable_upnp: false,
  enable_natpmp: false,
  allow_multiple_connections_per_ip: true,
  unchoke_slots_limit: -1,
  connection_speed: 200,
  smooth_connects: false,
  rate_limit_ip_overhead: false,
  // 16 KiB each: 24 MiB on their way. With 8,000 and 256 MiB of queued disk bytes 1 GiB took a tenth longer here.
  max_out_request_queue: 1500,
  max_allowed_in_request_queue: 2000,
  request_queue_time: 3,
  max_queued_disk_bytes: 16 * 1024 * 1024,
  send_buffer_watermark: 16 * 1024 * 1024,
  send_buffer_low_watermark: 1024 * 1024,
  send_buffer_watermark_factor: 200,
  max_peer_recv_buffer_size: 16 * 1024 * 1024,
  recv_socket_buffer_size: 4 * 1024 * 1024,
  send_socket_buffer_size: 4 * 1024 * 1024,
  aio_threads: 2,
  hashing_threads: 1
}

export function libtorrent (kind: 'plain' | 'encrypted'): Contender {
  // 0: encryption is required, 2: it is off; level 2: RC4, the whole stream.
  const policy = kind === 'encrypted' ? 0 : 2
  const settings = JSON.stringify({ ...SETTINGS, out_enc_policy: policy, in_enc_policy: policy, allowed_enc_level: kind === 'encrypted' ? 2 : 1, prefer_rc4: kind === 'encrypted' })
  return {
    name: `libtorrent (${kind})`,
    rival: true,
    encrypted: kind === 'encrypted',
    syncs: false,
    seedersMax: 3,
    bytesMax: Infinity,
    absent () {
      try {
        execFileSync(PYTHON, ['-c', 'import libtorrent'], { stdio: 'ignore' })
        return undefined
      } catch {
        return `${PYTHON} has no libtorrent (apt-get install python3-libtorrent)`
      }
    },
    async start (source, directory, count) {
      const torrent = join(directory, 'torrent')
      await using started = new AsyncDisposableStack()
      const ports: number[] = []
      const pids: number[] = []
      for (let i = 0; i < count; i++) {
        const seeder = started.use(new LineProcess(PYTHON, [PROGRAM, 'seed', settings, source.path, torrent]))
        ports.push((await seeder.json<{ port: number }>()).port)
        pids.push(seeder.pid)
      }
      const stack = started.move()
      return {
        pids,
        sources: [source.path],
        async loader (target, wanted) {
          const child = new LineProcess(PYTHON, [PROGRAM, 'load', settings, target])
          await child.json()
          return {
            pids: [child.pid],
            async run () {
              child.say(JSON.stringify({ torrent, ports: ports.slice(0, wanted) }))
              await child.json()
              return { path: join(target, basename(source.path)) }
            },
            async [Symbol.asyncDispose] () { await child[Symbol.asyncDispose]() }
          }
        },
        async [Symbol.asyncDispose] () { await stack.disposeAsync() }
      }
    }
  }
}
