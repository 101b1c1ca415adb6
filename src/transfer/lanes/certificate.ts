import { createHash, generateKeyPairSync, randomBytes, sign } from 'node:crypto'

/** What one process shows on all its lanes. Made anew at each start and known by its fingerprint alone: no name in it means anything. */
export interface LaneCertificate {
  /** PEM. */
  readonly key: string
  readonly cert: string
  /** sha-256 of the certificate's DER, 32 bytes. */
  readonly fingerprint: Uint8Array
}

/** X.509 tags (ITU-T X.690). */
const INTEGER = 0x02
const BIT_STRING = 0x03
const OBJECT_IDENTIFIER = 0x06
const UTF8_STRING = 0x0c
const GENERALIZED_TIME = 0x18
const SEQUENCE = 0x30
const SET = 0x31
const EXPLICIT_0 = 0xa0

/** ecdsa-with-SHA256, 1.2.840.10045.4.3.2 (RFC 5758). */
const ECDSA_SHA256 = Buffer.from('2a8648ce3d040302', 'hex')
/** id-at-commonName, 2.5.4.3 (RFC 5280). */
const COMMON_NAME = Buffer.from('550403', 'hex')

/**
 * A self-signed P-256 certificate. Nobody reads more of it than its key and its bytes' hash, so it has no extensions, and
 * it never expires (RFC 5280 4.1.2.5): hosts' clocks are off. 300 bytes of DER do not carry a certificate library's weight
 * (docs/decisions/0007-lanes.md).
 */
export function createLaneCertificate (): LaneCertificate {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const algorithm = der(SEQUENCE, der(OBJECT_IDENTIFIER, ECDSA_SHA256))
  const name = der(SEQUENCE, der(SET, der(SEQUENCE, der(OBJECT_IDENTIFIER, COMMON_NAME), der(UTF8_STRING, Buffer.from('shoal lane')))))
  const serial = randomBytes(16)
  serial[0] = 0x40 // positive, and not padded
  const content = der(SEQUENCE,
    der(EXPLICIT_0, der(INTEGER, Buffer.from([2]))),
    der(INTEGER, serial),
    algorithm,
    name,
    der(SEQUENCE, der(GENERALIZED_TIME, Buffer.from('20200101000000Z')), der(GENERALIZED_TIME, Buffer.from('99991231235959Z'))),
    name,
    publicKey.export({ type: 'spki', format: 'der' }))
  const signature = der(BIT_STRING, Buffer.from([0]), sign('sha256', content, privateKey))
  const whole = der(SEQUENCE, content, algorithm, signature)
  return {
    key: privateKey.export({ type: 'pkcs8', format: 'pem' }) as string,
    cert: `-----BEGIN CERTIFICATE-----\n${whole.toString('base64')}\n-----END CERTIFICATE-----\n`,
    fingerprint: fingerprintOf(whole)
  }
}

/** Of a certificate's DER. */
export function fingerprintOf (raw: Uint8Array): Uint8Array {
  return createHash('sha256').update(raw).digest()
}

function der (tag: number, ...parts: Uint8Array[]): Buffer {
  const body = Buffer.concat(parts)
  const { length } = body
  const head = length < 0x80 ? [tag, length] : length < 0x100 ? [tag, 0x81, length] : [tag, 0x82, length >> 8, length & 0xff]
  return Buffer.concat([Buffer.from(head), body])
}
