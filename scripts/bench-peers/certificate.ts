import { execFileSync } from 'node:child_process'
import { join } from 'node:path'

export interface Certificate { key: string, certificate: string }

/** Paths of a fresh self-signed P-256 certificate for localhost, as PEM, in `directory`. Throws when there is no openssl. */
export function makeCertificate (directory: string): Certificate {
  const key = join(directory, 'key.pem')
  const certificate = join(directory, 'certificate.pem')
  execFileSync('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2', '-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost,IP:127.0.0.1', '-keyout', key, '-out', certificate], { stdio: ['ignore', 'ignore', 'pipe'] })
  return { key, certificate }
}
