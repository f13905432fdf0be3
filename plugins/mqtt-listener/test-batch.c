#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "batch.h"
#include "message.h"

static void add(struct batch *batch, const char *device, const char *module, const char *output,
                const char *body, void *owner, bool acknowledged)
{
    Bus__Property property = BUS__PROPERTY__INIT, *properties[] = { &property };
    Bus__Message m = BUS__MESSAGE__INIT;

    property.name = (char *)MESSAGE_OUTPUT_NAME;
    property.value = (char *)output;
    m.device_id = (char *)device;
    m.module_id = (char *)module;
    m.n_system = output ? 1 : 0;
    m.system = properties;
    m.body = (ProtobufCBinaryData){ strlen(body), (uint8_t *)body };
    batch_add(batch, &m, bus__message__get_packed_size(&m), owner, acknowledged);
}

static void assert_item(const struct batch *batch, size_t index, const char *device,
                        const char *module, const char *output, const char *body)
{
    const Bus__PublishItem *item = batch->items[index];
    Bus__Message *m = bus__message__unpack(NULL, item->message.len, item->message.data);

    assert_string_equal(item->device_id, device);
    assert_string_equal(item->module_id, module);
    assert_string_equal(item->output_name, output);
    assert_non_null(m);
    assert_string_equal(m->device_id, device);
    assert_int_equal(m->body.len, strlen(body));
    assert_memory_equal(m->body.data, body, m->body.len);
    bus__message__free_unpacked(m, NULL);
}

static void test_items(void **state)
{
    _cleanup_(batch_freep) struct batch *batch = batch_new();

    add(batch, "a", "", NULL, "1", NULL, false);
    add(batch, "a", "", NULL, "2", NULL, false);
    add(batch, "a", "m", "out", "3", NULL, false);
    add(batch, "b", "", "out", "4", NULL, false); /* a device has no outputs */
    assert_int_equal(batch->count, 4);
    assert_item(batch, 0, "a", "", "", "1");
    assert_item(batch, 1, "a", "", "", "2");
    assert_item(batch, 2, "a", "m", "out", "3");
    assert_item(batch, 3, "b", "", "", "4");
    assert_ptr_equal(batch->items[0]->device_id, batch->items[1]->device_id);

    batch_reset(batch);
    assert_int_equal(batch->count, 0);
    assert_int_equal(batch->bytes, 0);
    add(batch, "c", "", NULL, "5", NULL, false);
    assert_item(batch, 0, "c", "", "", "5");
}

static void test_runs(void **state)
{
    _cleanup_(batch_freep) struct batch *batch = batch_new(), *copy = batch_new();
    size_t acknowledged;
    int a, b;

    add(batch, "a", "", NULL, "1", &a, true);
    add(batch, "a", "", NULL, "2", &a, false); /* QoS 0 */
    add(batch, "a", "", NULL, "3", &a, true);
    add(batch, "b", "m", "out", "4", &b, true);
    add(batch, "a", "", NULL, "5", &a, true);
    assert_int_equal(batch_run(batch, 0, &acknowledged), 3);
    assert_int_equal(acknowledged, 2);
    assert_int_equal(batch_run(batch, 1, &acknowledged), 2);
    assert_int_equal(acknowledged, 1);
    assert_int_equal(batch_run(batch, 3, &acknowledged), 1);
    assert_int_equal(batch_run(batch, 4, &acknowledged), 1);
    assert_int_equal(batch_run(batch, 5, &acknowledged), 0);

    batch_add_copy(copy, batch->items[3], &b, true);
    batch_reset(batch);
    assert_item(copy, 0, "b", "m", "out", "4");
    assert_ptr_equal(copy->entries[0].owner, &b);
    assert_true(copy->entries[0].acknowledged);
}

static void test_bounds(void **state)
{
    _cleanup_(batch_freep) struct batch *batch = batch_new();

    assert_true(batch_fits(batch, 1000000, 1, 10)); /* alone, whatever it is */
    add(batch, "a", "", NULL, "", NULL, false);
    assert_false(batch_fits(batch, 1, 1, 1000000));
    assert_true(batch_fits(batch, 1, 2, 1000000));
    assert_false(batch_fits(batch, 1000, 2, 1000));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_items),
        cmocka_unit_test(test_runs),
        cmocka_unit_test(test_bounds),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
