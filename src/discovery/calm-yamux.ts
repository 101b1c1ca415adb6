import type { StreamMuxer } from '@libp2p/interface'
import { yamux } from '@libp2p/yamux'
import { asError } from '../base/index.ts'

/** What is used here of a stream of @libp2p/yamux 8; it is not part of its interface, and so everything is looked for first. */
interface WindowedStream {
  state: number
  recvWindow: number
  recvWindowCapacity: number
  sendWindowUpdate: () => void
  abort: (error: Error) => void
}

/** Its StreamState: until then an update also carries the stream's SYN or ACK, and one that is paused says nothing anyway. */
const ESTABLISHED = 3
const SYN_SENT = 1
const INIT = 0
const FINISHED = 4

/**
 * Yamux that tells of a window when half of it is used, as its specification has it (github.com/hashicorp/yamux,
 * spec.md, and the Go implementation). js-libp2p's answers each frame of data with one of its own: half of all frames
 * that idle and slow nodes send and decrypt, each under a Noise message and a system call of its own.
 *
 * And a stream that is opened while its connection goes ends with it: the message that opens it is sent from a microtask of js-libp2p's, and
 * what that throws nobody catches, so that the process would end.
 */
export function calmYamux (init: Parameters<typeof yamux>[0]): ReturnType<typeof yamux> {
  return () => {
    const factory = yamux(init)()
    const create = factory.createStreamMuxer.bind(factory)
    factory.createStreamMuxer = maConn => calmed(create(maConn))
    return factory
  }
}

function calmed<M extends StreamMuxer> (muxer: M): M {
  const inner = muxer as { _newStream?: (...args: unknown[]) => unknown }
  const create = inner._newStream?.bind(inner)
  if (create === undefined) return muxer
  inner._newStream = (...args) => {
    const stream = create(...args)
    if (isWindowed(stream)) calm(stream)
    return stream
  }
  return muxer
}

function calm (stream: WindowedStream): void {
  const update = stream.sendWindowUpdate.bind(stream)
  stream.sendWindowUpdate = () => {
    if (stream.state === FINISHED) return
    const isEarly = stream.recvWindowCapacity > stream.recvWindow / 2
    if (isEarly && (stream.state === ESTABLISHED || stream.state === SYN_SENT)) return
    if (stream.state !== INIT) { update(); return }
    try {
      update()
    } catch (error) {
      stream.abort(asError(error))
    }
  }
}

function isWindowed (stream: unknown): stream is WindowedStream {
  if (typeof stream !== 'object' || stream === null) return false
  const { state, recvWindow, recvWindowCapacity, sendWindowUpdate, abort } = stream as Partial<WindowedStream>
  return typeof state === 'number' && typeof recvWindow === 'number' && typeof recvWindowCapacity === 'number' && typeof sendWindowUpdate === 'function' && typeof abort === 'function'
}
