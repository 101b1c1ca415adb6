import { Counter, Histogram, type Registry } from 'prom-client'

/** One answer of the Hugging Face endpoint, when it ended. */
export interface EndpointAnswer {
  status: number
  /** Head and body, as they left. */
  bytes: number
  /** From the request to the first byte of a file. Undefined for other answers. */
  firstByteSeconds: number | undefined
}

/** Told by the endpoint, listened to by the metrics: neither needs the other. */
export class EndpointTraffic {
  #listener: ((answer: EndpointAnswer) => void) | undefined

  answered (answer: EndpointAnswer): void { this.#listener?.(answer) }
  listen (listener: ((answer: EndpointAnswer) => void) | undefined): void { this.#listener = listener }
}

/** A file that is here is read in a millisecond or two; one that has to be found and fetched takes seconds. */
const FIRST_BYTE_SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30]

export function createEndpointMetrics (registry: Registry, traffic: EndpointTraffic): { stop: () => void } {
  const registers = [registry]
  const requests = new Counter({ name: 'shoal_hf_requests_total', help: 'Requests answered by the endpoint for Hugging Face clients', labelNames: ['status'], registers })
  const bytes = new Counter({ name: 'shoal_hf_sent_bytes_total', help: 'Bytes sent by the endpoint for Hugging Face clients', registers })
  const firstByte = new Histogram({ name: 'shoal_hf_first_byte_seconds', help: 'From a request for a file to the first byte of it', buckets: FIRST_BYTE_SECONDS, registers })
  requests.inc({ status: 200 }, 0)
  traffic.listen(answer => {
    requests.inc({ status: answer.status })
    bytes.inc(answer.bytes)
    if (answer.firstByteSeconds !== undefined) firstByte.observe(answer.firstByteSeconds)
  })
  return { stop: () => { traffic.listen(undefined) } }
}
