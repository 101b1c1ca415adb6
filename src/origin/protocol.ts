import type { Connection, Libp2p, Stream } from '@libp2p/interface'
import {
  NodeStoppedError, ORIGIN_STREAMS_PER_PEER_MAX, PeerGoneError, PeerTimeoutError, ProtocolError, abortReason, asError, throwIfAborted, type Clock, type Logger
} from '../base/index.ts'
import { framesOver, openStream, type FrameStream } from '../transfer/index.ts'
import type { Claim } from './claims.ts'
import {
  ANSWER_RULES, ASK, BYTES, CLAIMS, INSTALMENTS, LIST, ORIGIN_PROTOCOL, QUESTION_RULES, decodeAsk, decodeClaims, decodeInstalments, decodeList, decodePeek, encodeAsk, encodeBytes, encodeClaims, encodeInstalments,
  encodeList, encodePeek, type AskMessage, type PeekMessage
} from './messages.ts'

export interface OriginProtocolComponents {
  network: Libp2p
  clock: Clock
  logger: Logger
  isBanned: (peerId: string) => boolean
}

export interface OriginAnswers {
  /** What is known of a model, this node's own claim first. `from` makes this claim, or none. */
  asked: (from: string, message: AskMessage) => Claim[]
  /** What is here of a file that is on its way; nothing when that is nothing. */
  peeked: (message: PeekMessage) => Promise<Uint8Array | undefined>
  /** The instalments of a model that this node is fetching. */
  listed: (key: string) => readonly string[]
}

/** Longer than it takes to dial; a peer that does not answer in this time does not count. */
const ANSWER_MS = 4_000
/** A stream is closed after this, whatever it is for. */
const STREAM_MS = 10_000
const NOTHING = new Uint8Array(0)

/** `/shoal/origin/1`: who fetches a model from an upstream, and what came of it so far. One stream for each question. */
export class OriginProtocol {
  readonly #components: OriginProtocolComponents
  readonly #answers: OriginAnswers
  readonly #stopping = new AbortController()
  readonly #open = new Set<FrameStream>()

  constructor (components: OriginProtocolComponents, answers: OriginAnswers) {
    this.#components = components
    this.#answers = answers
  }

  async start (): Promise<void> {
    await this.#components.network.handle(ORIGIN_PROTOCOL, (stream, connection) => { this.#accept(stream, connection) }, {
      maxInboundStreams: ORIGIN_STREAMS_PER_PEER_MAX,
      maxOutboundStreams: ORIGIN_STREAMS_PER_PEER_MAX
    })
  }

  async stop (): Promise<void> {
    if (this.#stopping.signal.aborted) return
    this.#stopping.abort(new NodeStoppedError('the node is stopping'))
    for (const frames of this.#open) frames.close()
    this.#open.clear()
    await this.#components.network.unhandle(ORIGIN_PROTOCOL)
  }

  /** Connected peers that speak it. */
  async peers (): Promise<string[]> {
    const { network, isBanned } = this.#components
    const speaking: string[] = []
    for (const peerId of network.getPeers()) {
      const peer = await network.peerStore.get(peerId).catch(() => undefined) // gone in between
      if (peer?.protocols.includes(ORIGIN_PROTOCOL) === true && !isBanned(peerId.toString())) speaking.push(peerId.toString())
    }
    return speaking
  }

  /** Throws PeerGoneError, PeerTimeoutError, ProtocolError, and what libp2p throws. */
  async ask (peerId: string, message: AskMessage, signal: AbortSignal): Promise<Claim[]> {
    return decodeClaims(await this.#question(peerId, encodeAsk(message), CLAIMS, signal))
  }

  /** Empty when nothing is there. Throws as ask(). */
  async peek (peerId: string, message: PeekMessage, signal: AbortSignal): Promise<Uint8Array> {
    const bytes = await this.#question(peerId, encodePeek(message), BYTES, signal)
    if (bytes.length > message.length) throw new ProtocolError(`${peerId} sent more than it was asked for`)
    return bytes
  }

  /** Throws as ask(). */
  async instalments (peerId: string, key: string, signal: AbortSignal): Promise<string[]> {
    return decodeInstalments(await this.#question(peerId, encodeList(key), INSTALMENTS, signal))
  }

  async #question (peerId: string, question: Uint8Array, answer: number, given: AbortSignal): Promise<Uint8Array> {
    const { network, clock } = this.#components
    const late = new AbortController()
    const cancel = clock.setTimeout(() => { late.abort(new PeerTimeoutError(`${peerId} did not answer within ${ANSWER_MS} ms`)) }, ANSWER_MS)
    const signal = AbortSignal.any([given, late.signal, this.#stopping.signal])
    try {
      const stream = await openStream(network, peerId, ORIGIN_PROTOCOL, { clock, timeoutMs: ANSWER_MS, signal })
      throwIfAborted(signal)
      return await answerOver(stream, question, answer, signal)
    } catch (error) {
      throwIfAborted(signal)
      throw error
    } finally {
      cancel()
    }
  }

  #accept (stream: Stream, connection: Connection): void {
    const { isBanned, logger, clock } = this.#components
    const peerId = connection.remotePeer.toString()
    if (this.#stopping.signal.aborted || isBanned(peerId)) {
      stream.abort(new ProtocolError(`a stream of ${stream.protocol} that is not accepted from ${peerId}`))
      return
    }
    let asked = false
    // Who asked closes the stream when the answer is there, so that nothing of it is cut off.
    const cancel = clock.setTimeout(() => {
      this.#open.delete(frames)
      frames.close()
    }, STREAM_MS)
    const frames = framesOver(stream)(QUESTION_RULES, {
      frame: (type, body) => {
        if (asked) throw new ProtocolError('a second question on one stream')
        asked = true
        if (type === ASK) {
          frames.send(encodeClaims(this.#answers.asked(peerId, decodeAsk(Uint8Array.from(body), peerId))))
          return
        }
        if (type === LIST) {
          frames.send(encodeInstalments(this.#answers.listed(decodeList(Uint8Array.from(body)))))
          return
        }
        this.#answers.peeked(decodePeek(Uint8Array.from(body))).catch(error => {
          logger.debug({ peerId, error: asError(error).message }, 'what is on its way could not be read')
          return undefined
        }).then(bytes => { frames.send(encodeBytes(bytes ?? NOTHING)) }, () => undefined)
      },
      data: () => { throw new ProtocolError('data on a stream of questions') },
      drained: () => undefined,
      closed: error => {
        cancel()
        this.#open.delete(frames)
        if (error instanceof ProtocolError) logger.warn({ peerId, error: error.message }, 'a peer broke the origin protocol; its stream is closed')
      }
    })
    this.#open.add(frames)
  }
}

async function answerOver (stream: Stream, question: Uint8Array, expected: number, signal: AbortSignal): Promise<Uint8Array> {
  return await new Promise((resolve, reject) => {
    const end = (settle: () => void): void => {
      signal.removeEventListener('abort', onAbort)
      frames.close()
      settle()
    }
    const onAbort = (): void => { end(() => { reject(abortReason(signal)) }) }
    const frames = framesOver(stream)(ANSWER_RULES, {
      frame: (type, body) => {
        if (type !== expected) throw new ProtocolError('the answer to another question')
        const answer = Uint8Array.from(body)
        end(() => { resolve(answer) })
      },
      data: () => { throw new ProtocolError('data where an answer belongs') },
      drained: () => undefined,
      closed: error => { end(() => { reject(error instanceof ProtocolError ? error : new PeerGoneError(`the peer closed the stream without an answer: ${error.message}`, { cause: error })) }) }
    })
    signal.addEventListener('abort', onAbort, { once: true })
    frames.send(question)
  })
}

