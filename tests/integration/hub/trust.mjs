// NODE_EXTRA_CA_CERTS for an authority that was made after node began: the service SDK offers no option of its own.
import tls from 'node:tls';

export function trust(pem) {
    const create = tls.createSecureContext;
    tls.createSecureContext = (options) => {
        const context = create(options);
        context.context.addCACert(pem);
        return context;
    };
}
