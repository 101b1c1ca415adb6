import { timingSafeEqual } from 'node:crypto'
import type { OnReadOpts } from 'node:net'
import { connect, type ConnectionOptions, type TLSSocket } from 'node:tls'
import { KiB, PeerGoneError, abortReason } from '../../base/index.ts'
import { fingerprintOf, type LaneCertificate } from './certificate.ts'
import type { LaneInput } from './lane-socket.ts'
import { LANE_ALPN, encodeHello, encodeWelcome, type LaneOffer } from './messages.ts'
import { serverName } from './tickets.ts'
import { tlsOptions } from './tls-options.ts'

/** Larger than any TLS record (16 KiB of plaintext), and the same one each time, so that it stays in the cache. */
const READ_BUFFER_BYTES = 32 * KiB

export interface LaneClientInit {
  host: string
  offer: LaneOffer
  certificate: LaneCertificate
  signal: AbortSignal
}

/**
 * Opens TLS to where the offer says, sees that whoever answers holds the certificate that was promised over the
 * authenticated connection, and shows the ticket. `attach` says where its bytes go, which come only when asked for. Throws
 * PeerGoneError, or the signal's reason; the socket is closed then.
 */
export async function openLane ({ host, offer, certificate, signal }: LaneClientInit): Promise<{ socket: TLSSocket, attach: (input: LaneInput) => void }> {
  let input: LaneInput = { take: () => true }
  const scratch = new Uint8Array(READ_BUFFER_BYTES)
  const options: ConnectionOptions & { onread: OnReadOpts } = {
    ...tlsOptions,
    host,
    port: offer.port,
    servername: serverName(offer.name),
    ALPNProtocols: [LANE_ALPN],
    key: certificate.key,
    cert: certificate.cert,
    // There is no authority to ask: the fingerprint is compared instead.
    rejectUnauthorized: false,
    onread: {
      // Asked for anew after each record, once its callback has returned.
      buffer: () => input.place?.() ?? scratch,
      callback: (length: number, buffer: Uint8Array) => input.take(buffer, length)
    }
  }
  const socket = connect(options)
  await new Promise<void>((resolve, reject) => {
    const fail = (error: Error): void => {
      forget()
      socket.on('error', () => undefined)
      socket.destroy()
      reject(error)
    }
    const onError = (error: Error): void => { fail(new PeerGoneError(`no lane to ${host} port ${offer.port}: ${error.message}`, { cause: error })) }
    const onClose = (): void => { fail(new PeerGoneError(`the lane to ${host} port ${offer.port} was refused`)) }
    const onAbort = (): void => { fail(abortReason(signal)) }
    const forget = (): void => {
      socket.off('error', onError).off('close', onClose)
      signal.removeEventListener('abort', onAbort)
    }
    socket.on('error', onError).on('close', onClose)
    signal.addEventListener('abort', onAbort, { once: true })
    if (signal.aborted) { onAbort(); return }
    socket.once('secureConnect', () => {
      const raw = socket.getPeerX509Certificate()?.raw
      if (raw === undefined || !timingSafeEqual(fingerprintOf(raw), offer.fingerprint)) {
        fail(new PeerGoneError(`whoever listens on ${host} port ${offer.port} is not the peer that offered the lane`))
        return
      }
      socket.setNoDelay(true)
      socket.setKeepAlive(true, 30_000)
      socket.write(encodeHello(offer.secret))
    })
    const welcome = encodeWelcome()
    let said = Buffer.alloc(0)
    input = {
      take: (memory, length) => {
        said = Buffer.concat([said, memory.subarray(0, length)])
        if (said.length < welcome.length) return true
        if (said.equals(welcome)) {
          forget()
          // Nothing comes before the stream is there: it is the one that asks.
          socket.on('error', () => undefined)
          resolve()
        } else {
          fail(new PeerGoneError(`the peer at ${host} port ${offer.port} answered a ticket with something else`))
        }
        return true
      }
    }
  })
  return { socket, attach: next => { input = next } }
}
